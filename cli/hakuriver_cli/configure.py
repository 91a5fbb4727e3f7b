"""`hakuriver config show | check` and `hakuriver init config | service`."""

from __future__ import annotations

import getpass
import grp
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import BaseModel

from hakuriver.errors import HakuRiverError, UsageError
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.output import Column, Format, View
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app
from hakuriver_cli.units import Role, UnitPlan, unit_text

if TYPE_CHECKING:
    from hakuriver.config import Settings

config = new_app("config", "Show and check the configuration.")
init = new_app("init", "Write a configuration or systemd units.")

SYSTEMD_UNITS = Path("/etc/systemd/system")
SYSTEMD_RUNS = Path("/run/systemd/system")
_START = """\
# HakuRiver's configuration. Every key stands here with its default; take away the # to change one.
# `hakuriver config show` prints what is in effect, `hakuriver config check` looks for mistakes.

"""


class Written(BaseModel):
    """A file that was asked for; not written where it was there already."""

    path: Path
    written: bool


WRITTEN: View[Written] = View(
    name=lambda file: str(file.path),
    columns=[
        Column("FILE", lambda file: str(file.path)),
        Column("WRITTEN", lambda file: "yes" if file.written else "no"),
    ],
)


@config.command
def show(
    *,
    defaults: Annotated[bool, Parameter(help="The built-in defaults instead of what is in effect.")] = False,
    common: Common = COMMON,
) -> None:
    """Print the settings that are in effect, as TOML, each with its description; passwords are left out."""
    from hakuriver.config import Settings  # noqa: PLC0415  (loaded when it is needed)
    from hakuriver_cli.toml import settings_text, values  # noqa: PLC0415

    session = Session(common)
    settings = Settings() if defaults else session.settings
    if session.printer.form is Format.JSON:
        session.printer.json(values(settings))
    else:
        session.printer.out.write(settings_text(settings))


@config.command
def check(
    *,
    role: Annotated[
        Literal["all", "client", "host", "runner"], Parameter(help="What this machine is to be.")
    ] = "all",
    common: Common = COMMON,
) -> int:
    """Look for mistakes: the file, directories, ports, tokens, certificates, Docker, and whether the Host answers.

    Exits with 1 when there is a problem.
    """
    from hakuriver_cli.checks import FINDINGS, run_checks  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    findings = run_checks(common.config, role)
    session.printer.rows(findings, FINDINGS)
    return 0 if all(finding.ok for finding in findings) else 1


@init.command(name="config")
def init_config(*, common: Common = COMMON) -> None:
    """Write a commented configuration file to start from, unless there is one; it is never overwritten."""
    from hakuriver.config import Settings, own_config_path  # noqa: PLC0415  (loaded when it is needed)
    from hakuriver_cli.toml import settings_text  # noqa: PLC0415

    printer = Session(common, default=Format.NAME).printer
    path = own_config_path(common.config)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Written(path=path, written=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_START + settings_text(Settings(), inactive=True))
    except FileExistsError:
        made.written = False
        printer.say("it is there already, and left as it is")
    else:
        printer.say("written; set network.host_reachable_address and paths.shared_dir in it")
    printer.record(made, WRITTEN)


@init.command
def service(
    *,
    host: Annotated[bool, Parameter(help="The Host's unit.")] = False,
    runner: Annotated[bool, Parameter(help="The Runner's unit.")] = False,
    all_: Annotated[bool, Parameter(name="--all", help="Both units.")] = False,
    host_config: Annotated[
        Path | None, Parameter(help="The Host's configuration; goes before --config.")
    ] = None,
    runner_config: Annotated[
        Path | None, Parameter(help="The Runner's configuration; goes before --config.")
    ] = None,
    output_dir: Annotated[Path, Parameter(help="Where to write the units.")] = Path(),
    common: Common = COMMON,
) -> None:
    """Write systemd units for this machine; as root, where systemd runs, also install them."""
    roles: list[Role] = []
    if host or all_:
        roles.append("host")
    if runner or all_:
        roles.append("runner")
    if not roles:
        raise UsageError("no unit is named", "give --host, --runner or --all")
    given: dict[Role, Path | None] = {"host": host_config, "runner": runner_config}
    plans = [_plan(role, given[role] or common.config) for role in roles]
    printer = Session(common, default=Format.NAME).printer
    output_dir.mkdir(parents=True, exist_ok=True)
    for plan in plans:
        (output_dir / plan.file_name).write_text(unit_text(plan), "utf-8")
    printer.rows([Written(path=output_dir / plan.file_name, written=True) for plan in plans], WRITTEN)
    printer.say("\n".join(_installed(plans) if _may_install() else _advice(plans, output_dir)))


def _plan(role: Role, config_file: Path | None) -> UnitPlan:
    from hakuriver.config import config_path, load  # noqa: PLC0415  (loaded when it is needed)

    settings = load(config_file)
    return UnitPlan(
        role=role,
        python=sys.executable,
        config=config_path(config_file).absolute(),
        user=getpass.getuser(),
        group=grp.getgrgid(os.getgid()).gr_name,
        shared_dir=settings.paths.shared_dir,
        writes=_host_writes(settings),
    )


def _host_writes(settings: Settings) -> tuple[Path, ...]:
    paths = [settings.paths.shared_dir, settings.paths.state_dir]
    if settings.database.db_file:
        paths.append(settings.database.db_file.absolute().parent)
    if settings.paths.host_log_file:
        paths.append(settings.paths.host_log_file.absolute().parent)
    return tuple(dict.fromkeys(paths))


def _may_install() -> bool:
    return os.geteuid() == 0 and SYSTEMD_RUNS.is_dir()


def _installed(plans: list[UnitPlan]) -> list[str]:
    for plan in plans:
        (SYSTEMD_UNITS / plan.file_name).write_text(unit_text(plan), "utf-8")
    done = subprocess.run(["systemctl", "daemon-reload"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HakuRiverError(
            f"systemctl daemon-reload failed: {done.stderr.strip()}", "look at `systemctl status`"
        )
    names = " ".join(plan.file_name for plan in plans)
    return [f"installed in {SYSTEMD_UNITS}", f"start: systemctl enable --now {names}", *_logs(plans)]


def _advice(plans: list[UnitPlan], output_dir: Path) -> list[str]:
    files = " ".join(str(output_dir / plan.file_name) for plan in plans)
    names = " ".join(plan.file_name for plan in plans)
    return [
        "to install them:",
        f"  sudo install -m 0644 {files} {SYSTEMD_UNITS}",
        "  sudo systemctl daemon-reload",
        f"  sudo systemctl enable --now {names}",
        *_logs(plans),
    ]


def _logs(plans: list[UnitPlan]) -> list[str]:
    return [f"log: journalctl -fu {plan.file_name}" for plan in plans]

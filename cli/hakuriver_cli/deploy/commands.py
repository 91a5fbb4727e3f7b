"""`hakuriver cluster …`: what people type. Each command says what to play; `runs` plays it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hakuriver.errors import UsageError
from hakuriver.sizes import parse_duration
from hakuriver_cli.deploy import content, inventory, runs
from hakuriver_cli.deploy.options import PLAYING, Playing, Yes, confirm, find_inventory, play_of
from hakuriver_cli.deploy.outcome import Status
from hakuriver_cli.deploy.own_wheel import repacked
from hakuriver_cli.deploy.play import Play
from hakuriver_cli.deploy.port import Ansible, AnsibleRunner, check_installed
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.output import Format, Printer
from hakuriver_cli.tree import lazy, new_app

app = new_app("cluster", "Deploy and administer the cluster by Ansible.")
lazy(app, "deploy.creating:init", "init", "Write an inventory to start from.")
lazy(app, "deploy.standing:status", "status", "Compare the inventory with what the Host says.")
lazy(app, "deploy.bundle:bundle", "bundle", "Collect all that a cluster without internet needs.")

Wheel = Annotated[
    Path | None, Parameter(help="HakuRiver's wheel to install; without it, that of this installation.")
]
Bundle = Annotated[
    Path | None,
    Parameter(help="Folder made by `hakuriver cluster bundle`: install from it, without internet."),
]
NodeName = Annotated[str, Parameter(name="NODE", help="Name of the machine in the inventory.")]


@app.command
def deploy(
    *, wheel: Wheel = None, bundle: Bundle = None, playing: Playing = PLAYING, common: Common = COMMON
) -> int:
    """Make the machines of the inventory a cluster, or bring them up to date with it.

    Run it as often as you like: what is as it should be is left alone.
    """
    check_installed()
    return _play(common, playing, "deploy", "site", variables=source(wheel, bundle), installs=True)


@app.command
def check(*, playing: Playing = PLAYING, common: Common = COMMON) -> int:
    """Look whether every node is as the inventory says. Changes nothing."""
    return _play(common, playing, "check", "check", alone=False)


@app.command(name="add-node")
def add_node(
    name: NodeName,
    /,
    *,
    address: Annotated[str | None, Parameter(help="Its address for ssh; the name when left out.")] = None,
    user: Annotated[str | None, Parameter(help="Its ssh user, if not that of the others.")] = None,
    var: Annotated[
        tuple[str, ...], Parameter(help="A variable of this machine's own, name=value; may be repeated.")
    ] = (),
    group: Annotated[
        str, Parameter(help="Group of the inventory that it belongs to.")
    ] = inventory.RUNNER_GROUP,
    wheel: Wheel = None,
    bundle: Bundle = None,
    playing: Playing = PLAYING,
    common: Common = COMMON,
) -> int:
    """Write a machine into the inventory, unless it is there, and make it a node.

    Writing the lines by hand and running `hakuriver cluster deploy` does the same.
    """
    check_installed()
    from hakuriver_cli.deploy.members import Members  # noqa: PLC0415  (needs YAML)

    found = find_inventory(playing.inventory)
    given, own = {**source(wheel, bundle), "node": name}, default_source(found)
    # The Host's machine as well: its firewall lets the new one in.
    both = f"{name},{inventory.HOST_GROUP}"
    play = play_of(playing, found, "add-node", "add-node", limit=both, variables=given, defaults=own)
    printer = _printer(common)
    with Members(found, printer.say, keep=not playing.check) as members:
        members.add(name, group, own_variables(address, user, var))
        outcome = _deployment(printer).run(play)
        if outcome.status is not Status.OK and not outcome.changed:
            members.undo()
        return runs.finish(outcome, printer)


@app.command(name="remove-node")
def remove_node(
    name: NodeName,
    /,
    *,
    timeout: Annotated[
        str | None, Parameter(help="How long its tasks may take to end, such as 8h; one hour when left out.")
    ] = None,
    kill: Annotated[bool, Parameter(help="Kill what is left when the timeout passes.")] = False,
    yes: Yes = False,
    playing: Playing = PLAYING,
    common: Common = COMMON,
) -> int:
    """Drain a node, take HakuRiver off it, and take it out of the inventory. Its tasks end first.

    The Host's machine is no Runner any more then, and goes on as the Host.
    """
    check_installed()
    from hakuriver_cli.deploy.members import Members  # noqa: PLC0415  (needs YAML)

    found = find_inventory(playing.inventory)
    given = drain_variables(timeout, kill=kill)
    play = play_of(playing, found, "remove-node", "remove-node", limit=name, variables=given)
    printer = _printer(common)
    with Members(found, printer.say, keep=not playing.check) as members:
        members.require(name)
        if not playing.check:
            confirm(f"{name} will be drained, and is no node any more then.", yes=yes)
        code = _run(play, printer)
        if code == 0:
            members.remove(name)
    return code


@app.command
def upgrade(
    *, wheel: Wheel = None, bundle: Bundle = None, playing: Playing = PLAYING, common: Common = COMMON
) -> int:
    """Install a new version, machine by machine, while tasks go on.

    The Host is first, after a backup. A machine whose daemon is not well afterwards goes back to its old version, and
    the upgrade ends there.
    """
    check_installed()
    return _play(common, playing, "upgrade", "upgrade", variables=source(wheel, bundle), installs=True)


@app.command
def backup(*, playing: Playing = PLAYING, common: Common = COMMON) -> int:
    """Fetch a copy of the Host's state (database, keys, tokens) into `.hakuriver/backups` beside the inventory."""
    code = _play(common, playing, "backup", "backup")
    return _told_where(code, playing, common, "backups", "host-*.tar.gz")


@app.command
def restore(
    file: Annotated[Path, Parameter(name="FILE", help="A copy that `hakuriver cluster backup` made.")],
    /,
    *,
    yes: Yes = False,
    playing: Playing = PLAYING,
    common: Common = COMMON,
) -> int:
    """Put a copy of the Host's state back. What happened since that copy is forgotten."""
    check_installed()
    path = _existing(file)
    if not playing.check:
        confirm(f"The Host goes back to {path.name}; what happened since is forgotten.", yes=yes)
    return _play(common, playing, "restore", "restore", variables={"hakuriver_restore_file": str(path)})


@app.command
def rotate(
    what: Annotated[
        Literal["all", "tokens", "certificates"], Parameter(name="WHAT", help="What to renew.")
    ] = "all",
    /,
    *,
    playing: Playing = PLAYING,
    common: Common = COMMON,
) -> int:
    """Renew the daemons' tokens and certificates, while tasks go on."""
    return _play(common, playing, "rotate", "rotate", variables={"hakuriver_rotate": what})


@app.command
def logs(
    *,
    since: Annotated[
        str | None, Parameter(help="From when, as journalctl reads it: '2 hours ago', '2026-01-31 12:00'.")
    ] = None,
    playing: Playing = PLAYING,
    common: Common = COMMON,
) -> int:
    """Collect the daemons' logs and what the machines say of themselves into `.hakuriver/logs` beside the inventory."""
    given: dict[str, object] = {"hakuriver_logs_since": since} if since else {}
    code = _play(common, playing, "logs", "collect-logs", variables=given, alone=False)
    return _told_where(code, playing, common, "logs", "*")


@app.command
def reset(*, yes: Yes = False, playing: Playing = PLAYING, common: Common = COMMON) -> int:
    """Take HakuRiver off the machines, tasks and state included. The shared storage and its data stay."""
    check_installed()
    if not playing.check:
        where = playing.limit or "all machines of the inventory"
        confirm(f"HakuRiver, its tasks and its state will be removed from {where}.", yes=yes)
    return _play(common, playing, "reset", "reset", variables={"hakuriver_reset_confirmed": True})


def source(wheel: Path | None, bundle: Path | None) -> dict[str, object]:
    """The variables that say what to install. Raises UsageError when it is not there."""
    if wheel is not None and bundle is not None:
        raise UsageError("--wheel and --bundle exclude each other", "the bundle has a wheel of its own")
    if wheel is not None:
        return {"hakuriver_install_source": "wheel", "hakuriver_install_wheel": str(_existing(wheel))}
    if bundle is not None:
        from hakuriver_cli.deploy.bundle_plan import bundle_variables  # noqa: PLC0415  (installed with Ansible)

        return bundle_variables(_existing(bundle))
    return {}


def default_source(found: Path) -> dict[str, object]:
    """What to install where neither options nor inventory say it: in a checkout the playbooks build it themselves."""
    if content.checkout() is not None:
        return {}
    folder = inventory.controller(found) / "wheels"
    folder.mkdir(mode=0o700, exist_ok=True)
    return {
        "hakuriver_install_wheel": str(repacked(folder)),
        # A changed copy of the playbooks need not have it beside them.
        "hakuriver_install_requirements": str(content.lock_file("runtime")),
    }


def drain_variables(timeout: str | None, *, kill: bool) -> dict[str, object]:
    """How long the tasks of a node that goes may take."""
    found: dict[str, object] = {}
    if timeout is not None:
        found["hakuriver_remove_timeout"] = f"{parse_duration(timeout)}s"
    if kill:
        found["hakuriver_remove_kill"] = True
    return found


def own_variables(address: str | None, user: str | None, var: tuple[str, ...]) -> dict[str, str]:
    """A machine's own variables, as its entry in the inventory has them."""
    found = {"ansible_host": address, "ansible_user": user}
    own = {name: value for name, value in found.items() if value is not None}
    for text in var:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise UsageError(f"--var {text!r} is not understood", "write --var name=value")
        own[name] = value
    return own


def _play(
    common: Common,
    playing: Playing,
    what: str,
    playbook: str,
    *,
    variables: dict[str, object] | None = None,
    alone: bool = True,
    installs: bool = False,
) -> int:
    check_installed()
    found = find_inventory(playing.inventory)
    own = default_source(found) if installs else None
    play = play_of(playing, found, what, playbook, variables=variables, defaults=own)
    return _run(play, _printer(common), alone=alone)


def _run(play: Play, printer: Printer, *, alone: bool = True) -> int:
    return runs.finish(_deployment(printer).run(play, alone=alone), printer)


def _deployment(printer: Printer) -> runs.Deployment:
    return runs.Deployment(ansible(), content.project(), printer)


def ansible() -> Ansible:
    """What plays; tests put a double here."""
    return AnsibleRunner(content.project())


def _told_where(code: int, playing: Playing, common: Common, folder: str, pattern: str) -> int:
    """Says where the newest of what was fetched lies."""
    found = sorted((inventory.controller(find_inventory(playing.inventory)) / folder).glob(pattern))
    if code == 0 and found and not playing.check:
        _printer(common).say(f"it is in {found[-1]}")
    return code


def _printer(common: Common) -> Printer:
    return Printer(common.output or Format.TABLE)


def _existing(path: Path) -> Path:
    found = path.expanduser().absolute()
    if not found.exists():
        raise UsageError(f"there is no {found}", "check the path")
    return found

"""`hakuriver vps create`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from hakuriver.errors import UsageError
from hakuriver_cli.options import COMMON, Common, Duration
from hakuriver_cli.output import Format
from hakuriver_cli.public_keys import checked, default_keys, read
from hakuriver_cli.session import Session
from hakuriver_cli.submitting import (
    CONTAINER,
    FLAGS,
    NO_GPUS,
    PLACE,
    SUBMITTED,
    GpuOptions,
    HoldForNode,
    Memory,
    Mounts,
    NetworkName,
    Privileged,
    ShmSize,
    WantedLabels,
    report_made,
    variables,
)
from hakuriver_cli.vps_waiting import until_ssh_answers

_KEYS = Group("Who may log in", sort_key=0)


@Parameter(name="*")
@dataclass(frozen=True)
class VpsOptions:
    public_key_string: Annotated[
        str | None, Parameter(group=_KEYS, metavar="KEY", help="A public key, as a line of authorized_keys.")
    ] = None
    public_key_file: Annotated[
        Path | None,
        Parameter(
            group=_KEYS,
            help="File of a public key. Default: those of ~/.ssh. Keys that you have registered with `hakuriver key add`"
            " open it too.",
        ),
    ] = None
    name: Annotated[
        str | None,
        Parameter(group=PLACE, help="What to call it, as a machine is called: `ssh NAME.hakuriver`."),
    ] = None
    target: Annotated[
        str | None,
        Parameter(group=PLACE, help="Where to run: NODE[:NUMA][::GPU,GPU]. Without it the Host chooses."),
    ] = None
    cores: Annotated[
        int,
        Parameter(group=PLACE, help="Cores to hold, which are also its limit; 0 holds none, without limit."),
    ] = 0
    memory: Memory = None
    gpu: GpuOptions = NO_GPUS
    node_label: WantedLabels = ()
    time_limit: Annotated[
        Duration, Parameter(group=PLACE, help="End it, and what is in it, after so long, such as 12h or 7d.")
    ] = None
    restart: Annotated[
        Literal["always", "never"],
        Parameter(
            group=PLACE, help="Whether to start it again when it ends unasked, as when its machine restarts."
        ),
    ] = "always"
    idle_stop: Annotated[
        Duration,
        Parameter(
            group=PLACE,
            help="Stop it, and keep what is in it, when it was not used for so long: nobody connected, next to no"
            " processor time, and no use of its GPUs.",
        ),
    ] = None
    hold_for_node: HoldForNode = False
    container: Annotated[
        str | None,
        Parameter(group=CONTAINER, metavar="NAME", help="Environment to start from. Default: the Host's."),
    ] = None
    privileged: Privileged = None
    mount: Mounts = ()
    env: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--env", "-e"), group=CONTAINER, metavar="KEY=VALUE", help="A variable in it; repeatable."
        ),
    ] = ()
    network: NetworkName = None
    shm_size: ShmSize = None


_DEFAULTS = VpsOptions()


def create(
    *,
    options: VpsOptions = _DEFAULTS,
    wait: Annotated[bool, Parameter(help="Return when SSH answers, or when it has failed.")] = False,
    common: Common = COMMON,
) -> int:
    """Make a VPS, and print its id. Log in with `hakuriver ssh NAME`.

    It runs until it is killed, over restarts of Host, Runner and machine; what is in it ends with it.
    """
    from hakuriver.client.calls import submit_request  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common, default=Format.NAME)
    fields: dict[str, Any] = {
        "task_type": "vps",
        "command": _keys(session, options),
        "env_vars": variables(options.env),
        "required_cores": options.cores,
        "required_memory_bytes": options.memory,
        **options.gpu.fields(),
        "targets": [options.target] if options.target else [],
        "node_labels": list(options.node_label),
        "name": options.name,
        "container_name": options.container,
        "privileged": options.privileged,
        "additional_mounts": list(options.mount) or None,
        "network": options.network,
        "shm_size_bytes": options.shm_size,
        "time_limit_seconds": options.time_limit,
        "idle_stop_seconds": options.idle_stop,
        "restart": options.restart,
        "hold_for_node": options.hold_for_node,
    }
    made = session.client.submit(submit_request(fields, FLAGS))
    session.printer.record(made, SUBMITTED)
    session.printer.out.flush()
    code = report_made(session, made)
    if not wait or code:
        return code
    until_ssh_answers(session, made.task_ids[0], is_new=True)
    return 0


def _keys(session: Session, options: VpsOptions) -> str:
    """What the request says of keys: those that are named, else those of ~/.ssh, else the registered ones alone."""
    from hakuriver.models.submission import OWN_KEYS  # noqa: PLC0415  (loaded when it is needed)

    if options.public_key_string is not None and options.public_key_file is not None:
        raise UsageError("--public-key-string and --public-key-file are given", "give one of them")
    if options.public_key_string is not None:
        return checked(options.public_key_string, "--public-key-string")
    if options.public_key_file is not None:
        return read(options.public_key_file)
    if keys := default_keys(session.printer.say):
        return "\n".join(keys)
    if session.client.keys():
        return OWN_KEYS
    raise UsageError(
        "no public key is given, ~/.ssh has none, and you have none registered",
        "make one: ssh-keygen -t ed25519",
    )

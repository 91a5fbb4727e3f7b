"""What `task submit` and `task run` take, and the request that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from hakuriver.errors import UsageError
from hakuriver_cli.options import Duration, Moment
from hakuriver_cli.submitting import (
    CONTAINER,
    FLAGS,
    NO_GPUS,
    PLACE,
    GpuOptions,
    HoldForNode,
    Memory,
    Mounts,
    NetworkName,
    Privileged,
    ShmSize,
    WantedLabels,
    variables,
)

if TYPE_CHECKING:
    from hakuriver.models.submission import SubmitRequest

_ORDER = Group("When, and before whom", sort_key=2)
_LIFE = Group("How it runs", sort_key=4)


@Parameter(name="*")
@dataclass(frozen=True)
class OrderOptions:
    """What keeps a task from its turn, and what brings it there."""

    priority: Annotated[
        int,
        Parameter(group=_ORDER, help="The higher goes first; -1000 to 0, and up to 1000 for admins."),
    ] = 0
    hold: Annotated[bool, Parameter(group=_ORDER, help="Let it wait until `hakuriver task release`.")] = False
    not_before: Annotated[
        Moment,
        Parameter(
            group=_ORDER,
            help="Not to run before then: 18:00, 2026-12-31T18:00, or so long from now, such as 2h30m.",
        ),
    ] = None
    after: Annotated[
        tuple[str, ...],
        Parameter(
            group=_ORDER,
            metavar="ID[:ok|:any|:failed]",
            help="Run after this task, or all tasks of this batch, have completed (ok), ended or failed; repeatable.",
        ),
    ] = ()

    def fields(self) -> dict[str, Any]:
        return {
            "priority": self.priority,
            "hold": self.hold,
            "not_before": self.not_before,
            "after": list(self.after),
        }


AT_ONCE = OrderOptions()


@Parameter(name="*")
@dataclass(frozen=True)
class SubmitOptions:
    """Names are those of the request; what is not given is left to the Host's defaults."""

    target: Annotated[
        tuple[str, ...],
        Parameter(
            group=PLACE,
            metavar="TARGET",
            help="Where to run: NODE[:NUMA][::GPU,GPU]. Repeated, it makes one task for each. "
            "Without it the Host chooses.",
        ),
    ] = ()
    not_node: Annotated[
        tuple[str, ...],
        Parameter(group=PLACE, metavar="NODE", help="A node that is not to run it; repeatable."),
    ] = ()
    node_label: WantedLabels = ()
    exclusive: Annotated[
        bool,
        Parameter(
            group=PLACE,
            help="Have a node for itself, with all its cores; --cores and --memory say what it must have.",
        ),
    ] = False
    cores: Annotated[
        int, Parameter(group=PLACE, help="Cores to hold for each task, which are also its limit.")
    ] = 1
    memory: Memory = None
    gpu: GpuOptions = NO_GPUS
    order: OrderOptions = AT_ONCE
    count: Annotated[
        int,
        Parameter(
            group=PLACE,
            help="Tasks to make (of each target); each sees its number in HAKURIVER_TASK_INDEX.",
        ),
    ] = 1
    sweep: Annotated[
        bool,
        Parameter(
            group=PLACE,
            help="Make one task for each combination of the spans in command and variables, such as 'span:{1..10}' or 'span:[a,b]'.",
        ),
    ] = False
    max_running: Annotated[
        int | None,
        Parameter(group=PLACE, help="Of the tasks that this makes, so many run at a time at most."),
    ] = None
    hold_for_node: HoldForNode = False
    env: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--env", "-e"),
            group=CONTAINER,
            metavar="KEY=VALUE",
            help="A variable for the task; repeatable.",
        ),
    ] = ()
    env_file: Annotated[
        tuple[Path, ...],
        Parameter(
            group=CONTAINER,
            help="File of KEY=VALUE lines; --env goes before it. Empty lines and # lines are left aside.",
        ),
    ] = ()
    container: Annotated[
        str | None,
        Parameter(
            group=CONTAINER,
            metavar="NAME",
            help="Environment to run in; NULL runs it as a process on the node. Default: the Host's.",
        ),
    ] = None
    privileged: Privileged = None
    mount: Mounts = ()
    network: NetworkName = None
    shm_size: ShmSize = None
    workdir: Annotated[
        str | None,
        Parameter(name=("--workdir", "-w"), group=_LIFE, help="Folder to start in. Default: /shared."),
    ] = None
    user: Annotated[
        str | None, Parameter(group=_LIFE, metavar="UID[:GID]", help="Whom to run as, in numbers.")
    ] = None
    time_limit: Annotated[
        Duration, Parameter(group=_LIFE, help="Stop it after so long, such as 90s, 2h30m or 01:30:00.")
    ] = None
    retries: Annotated[
        int, Parameter(group=_LIFE, help="Further attempts after a failure that --retry-on names.")
    ] = 0
    retry_on: Annotated[
        tuple[str, ...],
        Parameter(
            group=_LIFE,
            metavar="failed|oom|lost|CODE",
            help="What counts, exit codes too; repeatable. Default: failed, oom and lost.",
        ),
    ] = ()
    retry_delay: Annotated[
        Duration,
        Parameter(group=_LIFE, help="Pause before the first further attempt; it doubles each time."),
    ] = None
    preemptible: Annotated[
        bool,
        Parameter(
            group=_LIFE,
            help="Come after others, make room for them when it runs (SIGTERM first), and wait for another attempt.",
        ),
    ] = False
    name: Annotated[str | None, Parameter(group=_LIFE, help="What to call it in lists.")] = None


DEFAULTS = SubmitOptions()


def request_of(options: SubmitOptions, command_line: Sequence[str]) -> SubmitRequest:
    """The request for a command line.

    Raises:
        UsageError: something that was given is wrong; the message names it.
    """
    from hakuriver.client.calls import submit_request  # noqa: PLC0415  (loaded when it is needed)

    if not command_line:
        raise UsageError("no command is given", "write it after the options, such as: -- python train.py")
    fields: dict[str, Any] = {
        "command": command_line[0],
        "arguments": list(command_line[1:]),
        "env_vars": variables(options.env, options.env_file),
        "required_cores": options.cores,
        "required_memory_bytes": options.memory,
        **options.gpu.fields(),
        **options.order.fields(),
        "targets": list(options.target),
        "not_nodes": list(options.not_node),
        "node_labels": list(options.node_label),
        "exclusive": options.exclusive,
        "preemptible": options.preemptible,
        "count": options.count,
        "sweep": options.sweep,
        "max_running": options.max_running,
        "name": options.name,
        "container_name": options.container,
        "privileged": options.privileged,
        "additional_mounts": list(options.mount) or None,
        "working_dir": options.workdir,
        "user": options.user,
        "network": options.network,
        "shm_size_bytes": options.shm_size,
        "time_limit_seconds": options.time_limit,
        "max_retries": options.retries,
        "retry_delay_seconds": options.retry_delay or 0,
        "hold_for_node": options.hold_for_node,
    }
    if options.retry_on:
        fields["retry_on"] = [int(each) if each.isdecimal() else each for each in options.retry_on]
    return submit_request(fields, FLAGS)

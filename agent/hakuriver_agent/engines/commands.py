"""Command lines and variables of tasks, as pure functions: they return lists and run nothing."""

from __future__ import annotations

from collections.abc import Sequence

from hakuriver.cores import as_list
from hakuriver.models.runner import AttemptSpec

SLICE = "hakuriver.slice"
"""Of all tasks' scopes, so that the kernel counts their out-of-memory kills in one place."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def task_variables(spec: AttemptSpec, node: str, local_temp: str, shared: str) -> dict[str, str]:
    """The variables of one task: HakuRiver's own, then the task's. The folders are as the task sees them."""
    ours = {
        "HAKURIVER_TASK_ID": str(spec.task_id),
        "HAKURIVER_ATTEMPT": str(spec.attempt),
        "HAKURIVER_BATCH_ID": str(spec.batch_id),
        "HAKURIVER_TASK_INDEX": str(spec.index),
        "HAKURIVER_NODE": node,
        "HAKURIVER_LOCAL_TEMP_DIR": local_temp,
        "HAKURIVER_SHARED_DIR": shared,
    }
    if spec.numa_node is not None:
        ours["HAKURIVER_TARGET_NUMA_NODE"] = str(spec.numa_node)
    if spec.gpus:
        ours["HAKURIVER_GPUS"] = ",".join(spec.gpus)
    return spec.env_vars | ours


def cuda_variables(gpus: Sequence[str], *, there: bool) -> dict[str, str]:
    """What keeps a process to its GPUs, where there are any: CUDA shows it no others (CUDA C++ Programming Guide)."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if there else {}


def numactl(program: str, numa_node: int, cpus: Sequence[int], argv: Sequence[str]) -> list[str]:
    """Runs `argv` on the cores (or some of them) and the memory of one NUMA node (numactl(8))."""
    cores = f"--physcpubind={as_list(cpus)}" if cpus else f"--cpunodebind={numa_node}"
    return [program, cores, f"--membind={numa_node}", "--", *argv]


def systemd_scope(
    unit: str, argv: Sequence[str], cores: int, memory_bytes: int | None, user: tuple[int, int] | None
) -> list[str]:
    """Runs `argv` in a transient scope of the system manager, within its limits (systemd-run(1)).

    setpriv(1) takes on the user, since systemd-run refuses numbers that no entry of the user database has.
    """
    limits = ["--property=KillMode=control-group"]
    if cores:
        limits.append(f"--property=CPUQuota={cores * 100}%")
    if memory_bytes:
        limits += [f"--property=MemoryMax={memory_bytes}", "--property=MemorySwapMax=0"]
    identity: list[str] = []
    if user is not None:
        identity = ["setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", f"--groups={user[1]}", "--"]
    head = ["systemd-run", "--scope", "--quiet", "--collect", f"--slice={SLICE}", f"--unit={unit}"]
    return [*head, *limits, "--", *identity, *argv]

"""GPUs: which of a node's a task gets, and why it gets none.

A GPU is held whole, by its UUID, since its number may change when the machine starts anew. A MIG instance is a GPU
like others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hakuriver.models.submission import SubmitRequest
from hakuriver.targets import Target


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node, as far as decisions need it."""

    uuid: str
    number: int
    model: str = ""
    memory_bytes: int = 0
    numa: int | None = None
    problem: str = ""
    """Why nothing new is to run on it."""
    group: int | None = None
    """The number of those that NVLink joins it with; none where it joins it with none."""

    def is_free(self, taken: Collection[str]) -> bool:
        return not self.problem and self.uuid not in taken


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What one task asks for."""

    count: int
    named: tuple[str, ...] = ()
    """These and no others, by number or UUID; as many as `count`."""
    model: str = ""
    """A part of the model's name, whatever its case."""
    memory_bytes: int = 0
    """Of each, at least."""
    shared: bool = False
    """Others that would share them may have them too, where the node lets them."""


def asked(spec: SubmitRequest, target: Target | None) -> GpuRequest | None:
    """What a task of this submission asks for at this target; none without GPUs."""
    if target is not None and target.gpus:
        return GpuRequest(len(target.gpus), target.gpus, shared=spec.share_gpus)
    if spec.gpus:
        model, memory = (spec.gpu_model or "").casefold(), spec.gpu_memory_bytes or 0
        return GpuRequest(spec.gpus, (), model, memory, spec.share_gpus)
    return None


def suitable(gpus: Iterable[Gpu], request: GpuRequest) -> list[Gpu]:
    """Those that would do, whoever has them now and however they are."""
    if request.named:
        return [gpu for gpu in gpus if gpu.uuid in request.named or str(gpu.number) in request.named]
    return [
        gpu
        for gpu in gpus
        if _is_model(gpu.model.casefold(), request.model) and gpu.memory_bytes >= request.memory_bytes
    ]


def _is_model(model: str, wanted: str) -> bool:
    """Who asks for an A100 does not mean a seventh of one: a MIG instance has to be asked for as such."""
    return wanted in model and not (wanted and "mig" in model and "mig" not in wanted)


def lacking(gpus: Sequence[Gpu], request: GpuRequest) -> str:
    """Why a node with these could never serve the request; empty when it could."""
    found = suitable(gpus, request)
    if len(found) >= request.count:
        return ""
    has = _list(gpus) or "none"
    if request.named:
        known = {name for gpu in found for name in (gpu.uuid, str(gpu.number))}
        missing = ", ".join(name for name in request.named if name not in known)
        if not missing:
            return f"{', '.join(request.named)}: two of these are the same GPU"
        return f"it has no GPU {missing} (it has {has})"
    if not gpus:
        return f"it has no GPU, {described(request)} asked for"
    such = "1 such GPU" if len(found) == 1 else f"{len(found) or 'no'} such GPUs"
    return f"it has {such}, {described(request)} asked for (it has {has})"


def has_well(gpus: Iterable[Gpu], request: GpuRequest | None) -> bool:
    """Whether those that would do, and are well, are enough: then it is worth waiting for them."""
    if request is None:
        return True
    return sum(not gpu.problem for gpu in suitable(gpus, request)) >= request.count


def choose(
    gpus: Iterable[Gpu],
    taken: Collection[str],
    request: GpuRequest,
    numa: int | None,
    begun: Collection[str] = (),
) -> tuple[Gpu, ...] | None:
    """The GPUs to give, or none when there are not enough now.

    Of the wanted NUMA node if it has enough, and joined by NVLink if enough are. Among these as few NUMA nodes as may be,
    and of those that serve the one with the fewest left; of the GPUs there the smallest, so that large ones stay for
    those who need them. One that shares gets those that are shared already, which have `begun`, where there are enough.
    """
    free = [gpu for gpu in suitable(gpus, request) if gpu.is_free(taken)]
    if len(free) < request.count:
        return None
    if request.shared and len(joined := [gpu for gpu in free if gpu.uuid in begun]) >= request.count:
        free = joined
    near = [gpu for gpu in free if gpu.numa == numa]
    if numa is not None and len(near) >= request.count:
        free = near
    groups: defaultdict[int | None, list[Gpu]] = defaultdict(list)
    for gpu in sorted(
        _linked_alike(free, request.count), key=lambda gpu: (gpu.memory_bytes, gpu.number, gpu.uuid)
    ):
        groups[gpu.numa].append(gpu)

    def rank(number: int | None) -> tuple[bool, bool, int, int]:
        size = len(groups[number])
        serves = size >= request.count
        return (number != numa, not serves, size if serves else -size, -1 if number is None else number)

    chosen = [gpu for number in sorted(groups, key=rank) for gpu in groups[number]][: request.count]
    return tuple(sorted(chosen, key=lambda gpu: (gpu.number, gpu.uuid)))


def _linked_alike(free: list[Gpu], count: int) -> list[Gpu]:
    """Those of the NVLink group that serves with the fewest left; all, where none does. Who needs one GPU alone gets one
    without links, if there is one.
    """
    groups: defaultdict[int | None, list[Gpu]] = defaultdict(list)
    for gpu in free:
        groups[gpu.group].append(gpu)
    alone = groups.pop(None, [])
    if count == 1 and alone:
        return alone
    serving = [
        (len(members), number)
        for number, members in groups.items()
        if number is not None and len(members) >= count
    ]
    return groups[min(serving)[1]] if serving else free


def linked(links: Iterable[tuple[str, Collection[str]]]) -> dict[str, int]:
    """Groups of GPUs that NVLink joins, directly or by way of others and of switches: the number of its group by each
    GPU's place on the bus. `links` has for each GPU its place, and the places that its links lead to.
    """
    joined = {place: {place, *far} for place, far in links if far}
    groups: list[set[str]] = []
    for places in joined.values():
        apart = [group for group in groups if not group & places]
        groups = [*apart, places.union(*(group for group in groups if group & places))]
    ordered = sorted(sorted(group & joined.keys()) for group in groups)
    return {place: number for number, members in enumerate(ordered) for place in members}


def short(gpus: Sequence[Gpu], taken: Mapping[str, int], request: GpuRequest) -> str:
    """Why a node that could serve the request does not now; empty when it does."""
    could = suitable(gpus, request)
    bad = [gpu for gpu in could if gpu.problem]
    held = [gpu for gpu in could if not gpu.problem and gpu.uuid in taken]
    if len(could) - len(bad) - len(held) >= request.count:
        return ""
    sick = "".join(f"; GPU {gpu.number} is out of service: {gpu.problem}" for gpu in bad[:1])
    if request.named and held:
        holders = ", ".join(f"GPU {gpu.number} by task {taken[gpu.uuid]}" for gpu in held)
        return f"in use: {holders}{sick}"
    free = len(could) - len(bad) - len(held)
    return f"{free} of {len(could)} GPUs free, {described(request)} asked for{sick}"


def described(request: GpuRequest) -> str:
    """Such as `2 GPUs (a100, 40.00G)`."""
    wishes = [request.model, f"{request.memory_bytes / 1e9:.2f}G" if request.memory_bytes else ""]
    text = ", ".join(filter(None, wishes))
    return f"{request.count} GPU{'' if request.count == 1 else 's'}{f' ({text})' if text else ''}"


def _list(gpus: Iterable[Gpu]) -> str:
    return ", ".join(f"{gpu.number}: {gpu.model or gpu.uuid}" for gpu in gpus)

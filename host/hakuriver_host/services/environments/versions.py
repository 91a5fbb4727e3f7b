"""Versions of environments: looked at, packed, imported and exported, chosen, and removed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sized

import structlog

from hakuriver.errors import ConflictError, NotFoundError, StorageError, UsageError
from hakuriver.models.environments import (
    EnvironmentInfo,
    GarbageReport,
    PackRequest,
    PackResult,
    RollbackRequest,
    TagRequest,
    VersionDiff,
    VersionInfo,
    VersionManifest,
    package_changes,
)
from hakuriver.models.nodes import EnvironmentVersions
from hakuriver.models.tasks import Message
from hakuriver.references import Reference
from hakuriver.states import NodeState
from hakuriver.threads import start_thread
from hakuriver_host.domain.model import Task
from hakuriver_host.services.access import Principal
from hakuriver_host.services.environments import making
from hakuriver_host.services.environments.catalogue import (
    describe,
    file_of,
    list_environments,
    missing_layers,
)
from hakuriver_host.services.environments.collecting import collect
from hakuriver_host.services.environments.desk import Desk, checked, in_use
from hakuriver_host.services.environments.garbage import Retention, expired
from hakuriver_host.services.environments.packing import Packer
from hakuriver_host.services.environments.snapshots import is_private, snapshots_of

log = structlog.get_logger(__name__)

_NAMED = 20
"""Snapshots whose environments a hint names, at most."""


class VersionService:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._packer = Packer(desk.engine, desk.catalog, desk.memory)

    async def tarballs(self) -> dict[str, EnvironmentVersions]:
        found = await self._desk.share(lambda: list_environments(self._desk.catalog.root))
        return {name: versions for name, versions in found.items() if not is_private(name)}

    async def seen(self, principal: Principal) -> list[EnvironmentInfo]:
        """The environments that somebody may use."""
        return [info for info in await self.overview() if _may_see(info, principal)]

    async def seen_one(self, name: str, principal: Principal) -> EnvironmentInfo:
        """One of them.

        Raises:
            NotFoundError: there is none of that name.
        """
        info = await self.one(name)
        if not _may_see(info, principal):
            raise _unknown(name)
        return info

    async def overview(self) -> list[EnvironmentInfo]:
        """All environments, those that have a container and no version yet too."""
        nodes = {
            name: node.heartbeat.environments
            for name, node in self._desk.core.cluster.nodes.items()
            if node.state is NodeState.ONLINE
        }
        found = {
            info.name: info for info in await self._desk.share(lambda: describe(self._desk.catalog, nodes))
        }
        for container in await self._desk.containers():
            known = found.get(container.environment) or EnvironmentInfo(name=container.environment)
            found[container.environment] = known.model_copy(
                update={"container": container.state, "image": container.image_name}
            )
        return [found[name] for name in sorted(found)]

    async def one(self, name: str) -> EnvironmentInfo:
        for info in await self.overview():
            if info.name == name:
                return info
        raise _unknown(name)

    async def diff(
        self, name: str, before: int | None, after: int | None, principal: Principal
    ) -> VersionDiff:
        """Between two versions; by default the current one and its parent."""
        await self._desk.may_use(name, principal)

        def work() -> VersionDiff:
            versions = self._desk.catalog.versions(name)
            if not versions:
                raise _unknown(name)
            new = self._layered(name, after if after is not None else self._desk.current(name))
            old_version = before if before is not None else new.parent
            if old_version is None:
                raise UsageError(f"{name}@{new.version} is the first version", "name the two versions")
            old = self._layered(name, old_version)
            known = old.packages is not None and new.packages is not None
            return VersionDiff(
                name=name,
                before=old.version,
                after=new.version,
                size_before=old.size,
                size_after=new.size,
                added_layers=missing_layers(new.layers, old.layers),
                removed_layers=missing_layers(old.layers, new.layers),
                packages=package_changes(old.packages or {}, new.packages or {}) if known else None,
            )

        return await self._desk.share(work)

    async def pack(self, name: str, request: PackRequest, principal: Principal) -> PackResult:
        """Makes the next version of what is in the container now, and lets retention remove old ones."""
        await self._desk.may_change(name, principal)
        async with self._desk.alone(name, "being packed"), self._desk.writing():
            packing = await start_thread(lambda: self._packer.pack(name, principal.name, request.message))
            await self._desk.share(lambda: self._to_newest(name))
        removed = await self._retain(name)
        manifest = packing.manifest
        version = await self._version(name, manifest.version)
        log.info("packed", environment=name, version=manifest.version, written=packing.written)
        return PackResult(
            message=f"{name}@{manifest.version} is packed",
            version=version,
            written=packing.written,
            full=bool(packing.why_full),
            why_full=packing.why_full,
            tarball_path=self._place(name, manifest.version),
            removed=removed,
        )

    async def import_(
        self, name: str, body: AsyncIterator[bytes], message: str, principal: Principal
    ) -> PackResult:
        """An archive of an image becomes the next version."""
        checked(name)
        await self._desk.may_make(name, principal)
        made = await self._from_archive(name, body, principal.name, message, "being imported")
        return made.model_copy(update={"message": f"{name}@{made.version.version} is imported"})

    async def snapshot(self, task: Task, body: AsyncIterator[bytes], message: str) -> PackResult:
        """What is in a VPS becomes a version of an environment of its own, which its owner alone may use."""
        name, batch = snapshots_of(task.task_id), task.batch
        like = Reference(batch.environment or "", int(batch.environment_version or 0))
        made = await self._from_archive(name, body, batch.owner, message, "being taken", like)
        removed = await self._retain(name)
        taken = f"the snapshot {name}@{made.version.version} is taken"
        return made.model_copy(update={"message": taken, "removed": removed})

    async def _from_archive(
        self,
        name: str,
        body: AsyncIterator[bytes],
        author: str,
        message: str,
        doing: str,
        like: Reference | None = None,
    ) -> PackResult:
        async with (
            self._desk.alone(name, doing),
            self._desk.writing(),
            self._desk.spooled(body) as file,
        ):
            manifest, written = await start_thread(
                lambda: making.import_version(self._desk.catalog, name, file, author, message, like)
            )
            await self._desk.share(lambda: self._to_newest(name))
        return PackResult(
            message="",
            version=await self._version(name, manifest.version),
            written=written,
            full=True,
            tarball_path=self._place(name, manifest.version),
        )

    async def snapshots(self, task_id: int) -> list[VersionInfo]:
        """Those of a VPS, newest first."""
        name = snapshots_of(task_id)
        return next((info.versions for info in await self.overview() if info.name == name), [])

    async def snapshots_by(self, author: str) -> list[Reference]:
        """Those of all VPS of an owner, the ended ones' too.

        Raises:
            StorageError: the share cannot be read, or of a snapshot it cannot be told whose it is.
        """
        catalog = self._desk.catalog

        def work() -> list[Reference]:
            if not catalog.root.is_dir():  # As where the share is not mounted: nothing is no answer then.
                raise StorageError(f"{catalog.root} is not there", "check the share's mount on the Host")
            found = []
            for name, versions in catalog.all_versions().items():
                for version in versions if is_private(name) else ():
                    with contextlib.suppress(NotFoundError):  # Removed meanwhile.
                        manifest = catalog.manifest(name, version)
                        if manifest is not None and manifest.author == author:
                            found.append(Reference(name, version))
            return found

        return await self._desk.share(work)

    async def check_nothing_left(self, name: str) -> None:
        """That no snapshot is in the store of a user who was removed, which the next of that name would have.

        Raises:
            ConflictError: there are some.
            StorageError: it cannot be told.
        """
        if left := await self.snapshots_by(name):
            environments = " ".join(dict.fromkeys(snapshot.name for snapshot in left[:_NAMED]))
            raise ConflictError(
                f"a removed user {name} still has {counted(left)}, which a new one would have then",
                f"see `hakuriver env list`, and delete them: `hakuriver env delete {environments} --versions`",
            )

    async def chosen_snapshot(self, task_id: int, version: int | None) -> int:
        """The number of a snapshot that can be read; none is the newest.

        Raises:
            NotFoundError: there is none.
        """
        name = snapshots_of(task_id)

        def work() -> int:
            newest = max(self._desk.catalog.versions(name), default=None)
            return self._desk.chosen(name, version if version is not None else newest)

        return await self._desk.share(work)

    async def export(
        self, name: str, version: int | None, principal: Principal
    ) -> tuple[int, Iterator[bytes]]:
        """The number of the version, and its archive."""
        await self._desk.may_use(name, principal)
        number = await self._desk.share(lambda: self._desk.chosen(name, version))
        return number, making.exported(self._desk.catalog, name, number)

    async def rollback(self, name: str, request: RollbackRequest, principal: Principal) -> VersionInfo:
        """Makes an older version the current one: what tasks that are submitted from now on run."""
        await self._desk.may_change(name, principal)

        def work() -> int:
            versions = self._desk.catalog.versions(name)
            number = request.version
            if number is None:
                current = self._desk.current(name)
                older = [version for version in versions if version < current]
                if not older:
                    raise UsageError(
                        f"{name} has no version before {current}", f"see `hakuriver env versions {name}`"
                    )
                number = older[0]
            number = self._desk.chosen(name, number)
            head = self._desk.catalog.head(name)
            newest = number == versions[0]
            self._desk.catalog.write_head(
                name, head.model_copy(update={"current": None if newest else number})
            )
            return number

        async with self._desk.alone(name, "being changed"):
            number = await self._desk.share(work)
        return await self._version(name, number)

    async def tag(self, name: str, request: TagRequest, principal: Principal) -> VersionInfo:
        await self._desk.may_change(name, principal)

        def work() -> int:
            number = self._desk.chosen(name, request.version)
            head = self._desk.catalog.head(name)
            tags = dict(head.tags)
            if request.remove:
                if request.tag not in tags:
                    raise NotFoundError(
                        f"{name} has no tag {request.tag!r}", f"see `hakuriver env versions {name}`"
                    )
                number = tags.pop(request.tag)
            else:
                tags[request.tag] = number
            self._desk.catalog.write_head(name, head.model_copy(update={"tags": tags}))
            return number

        async with self._desk.alone(name, "being changed"):
            number = await self._desk.share(work)
        return await self._version(name, number)

    async def collect(self, *, dry_run: bool) -> GarbageReport:
        """Removes what retention lets go, and layers that no version has.

        Raises:
            ConflictError: something is being packed, or another collection runs.
        """
        if self._desk.busy or self._desk.collecting:
            what = (
                ", ".join(f"{name} is {doing}" for name, doing in self._desk.busy.items())
                or "another collection runs"
            )
            raise ConflictError(f"not now: {what}", "try again when that is done")
        self._desk.collecting = True
        try:
            named = {
                name: self._desk.named(name) for name in await self._desk.share(self._desk.catalog.names)
            }
            return await start_thread(
                lambda: collect(self._desk.catalog, named, self._retention, dry_run=dry_run)
            )
        finally:
            self._desk.collecting = False
            self._desk.pins.forget()

    async def delete(
        self, name: str, principal: Principal, *, versions: bool, version: int | None
    ) -> Message:
        """Removes the container; with `versions` all versions too, with `version` that one alone.

        Raises:
            ConflictError: a task that is not final names a version, or it is tagged.
        """
        await self._desk.may_change(name, principal)
        if version is not None:
            await self._delete_versions(name, [version])
            return Message(message=f"{name}@{version} is deleted")
        found = await self._desk.share(lambda: self._desk.catalog.versions(name))
        if versions and (used := sorted(self._desk.named(name) & {*found})):
            raise in_use(name, used)
        async with self._desk.alone(name, "being deleted"):
            container = await self._desk.container(name)
            if container is not None:
                await start_thread(lambda: self._desk.engine.remove(name))
                self._packer.forget(name)
        if container is None and not versions:
            raise NotFoundError(
                f"the environment {name} has no container on the Host",
                "to delete its versions too: `hakuriver env delete NAME --versions`"
                if found
                else "see `hakuriver env list`",
            )
        if versions:
            await self._delete_versions(name, found)
        kept = "" if versions or not found else f"; its {len(found)} versions stay"
        return Message(message=f"{name} is deleted{kept}")

    def _layered(self, name: str, version: int) -> VersionManifest:
        manifest = self._desk.catalog.manifest(name, version)
        if manifest is None:
            raise UsageError(
                "an archive tells no layers", f"`hakuriver env versions {name}` shows which are archives"
            )
        return manifest

    def _place(self, name: str, version: int) -> str:
        """The version's file, relative to the share's root."""
        return f"{self._desk.core.settings.docker.container_dir}/{file_of(self._desk.catalog, name, version)}"

    def _to_newest(self, name: str) -> None:
        """A new version is what people want to run, also after a rollback."""
        head = self._desk.catalog.head(name)
        if head.current is not None:
            self._desk.catalog.write_head(name, head.model_copy(update={"current": None}))

    async def _version(self, name: str, version: int) -> VersionInfo:
        info = await self.one(name)
        return next(each for each in info.versions if each.version == version)

    async def _delete_versions(self, name: str, versions: list[int]) -> None:
        def work() -> None:
            head = self._desk.catalog.head(name)
            for version in versions:
                # One whose manifest is damaged can be deleted too: it is only looked whether it is there.
                self._desk.catalog.resolve(Reference(name, version))
                self._desk.catalog.delete(name, version)
            left = {tag: tagged for tag, tagged in head.tags.items() if tagged not in versions}
            current = head.current if head.current not in versions else None
            if self._desk.catalog.versions(name) and (left, current) != (head.tags, head.current):
                self._desk.catalog.write_head(
                    name, head.model_copy(update={"tags": left, "current": current})
                )

        if used := sorted(self._desk.named(name) & {*versions}):
            raise in_use(name, used)
        async with self._desk.alone(name, "being deleted"):
            await self._desk.share(work)

    async def _retain(self, name: str) -> list[int]:
        named = self._desk.named(name)

        def work() -> list[int]:
            gone = expired(
                self._desk.catalog.versions(name),
                self._desk.catalog.head(name),
                named,
                self._retention,
                time.time(),
            )
            for version in gone:
                self._desk.catalog.delete(name, version)
            return gone

        return await self._desk.share(work)

    @property
    def _retention(self) -> Retention:
        docker = self._desk.core.settings.docker
        return Retention(docker.keep_versions, docker.keep_days)


def counted(snapshots: Sized) -> str:
    """How many there are, in words."""
    return f"{len(snapshots)} snapshot{'' if len(snapshots) == 1 else 's'} of VPS"


def _may_see(info: EnvironmentInfo, principal: Principal) -> bool:
    mine = principal.is_admin or any(version.author == principal.name for version in info.versions)
    return mine or not is_private(info.name)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"there is no environment {name!r}", "see `hakuriver env list`")

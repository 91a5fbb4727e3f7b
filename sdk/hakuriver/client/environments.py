"""Environments, as `Client.env` offers them: blocking, with bodies that are streamed both ways."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from hakuriver import models
from hakuriver.client import calls, wire

if TYPE_CHECKING:
    from hakuriver.models.environments import (
        EnvironmentContainer,
        EnvironmentInfo,
        GarbageReport,
        PackResult,
        SyncProgress,
        VersionDiff,
        VersionInfo,
    )
    from hakuriver.models.tasks import Message


T = TypeVar("T")
Pieces = Iterable[bytes]


class EnvironmentCalls:
    """Every method raises a `hakuriver.errors.HakuRiverError`: the one that the Host sent, or `UnreachableError`.

    Making and packing take as long as they take. Archives and trees of files travel as tars, piece by piece.
    """

    def __init__(self, http: httpx.Client, address: wire.Address) -> None:
        self._http = http
        self._address = address

    def list(self) -> Iterable[EnvironmentInfo]:
        return self._send(calls.environment_list())

    def get(self, name: str) -> EnvironmentInfo:
        return self._send(calls.environment(name))

    def containers(self) -> Iterable[EnvironmentContainer]:
        """The containers on the Host in which environments are prepared."""
        return self._send(calls.environment_containers())

    def create(self, name: str, **source: Any) -> EnvironmentInfo:
        """Makes one of an `image`, of a version (`base`), or by `debootstrap`: the fields of `EnvironmentCreate`."""
        request = calls.made(models.environments.EnvironmentCreate, f"make {name}", name=name, **source)
        return self._send(calls.create_environment(request))

    def create_from(self, name: str, kind: str, tar: Pieces) -> EnvironmentInfo:
        """Makes one of an `archive` of an image, a `rootfs`, or the folder of a `dockerfile`."""
        return self._send(calls.upload_environment(name, kind), tar)

    def clone(self, name: str, new: str) -> EnvironmentInfo:
        return self._send(
            calls.clone_environment(
                name, calls.made(models.environments.EnvironmentClone, f"make {new}", name=new)
            )
        )

    def start(self, name: str) -> Message:
        return self._send(calls.start_environment(name))

    def stop(self, name: str) -> Message:
        return self._send(calls.stop_environment(name))

    def delete(self, name: str, *, versions: bool = False, version: int | None = None) -> Message:
        """The container; with `versions` all versions too, with `version` that one alone."""
        return self._send(calls.delete_environment(name, versions=versions, version=version))

    def pack(self, name: str, message: str = "") -> PackResult:
        return self._send(
            calls.pack_environment(
                name, calls.made(models.environments.PackRequest, f"pack {name}", message=message)
            )
        )

    def import_(self, name: str, archive: Pieces, message: str = "") -> PackResult:
        return self._send(calls.import_environment(name, message), archive)

    @contextmanager
    def export(self, name: str, version: int | None = None) -> Generator[tuple[int, Iterator[bytes]]]:
        """The number of the version, and the pieces of its archive."""
        with self._download(calls.export_environment(name, version)) as response:
            yield int(response.headers["X-Environment-Version"]), response.iter_raw()

    def diff(self, name: str, before: int | None = None, after: int | None = None) -> VersionDiff:
        return self._send(calls.diff_environment(name, before, after))

    def rollback(self, name: str, version: int | None = None) -> VersionInfo:
        request = calls.made(models.environments.RollbackRequest, f"roll {name} back", version=version)
        return self._send(calls.rollback_environment(name, request))

    def tag(self, name: str, tag: str, version: int | None = None, *, remove: bool = False) -> VersionInfo:
        request = calls.made(
            models.environments.TagRequest, f"tag {name}", tag=tag, version=version, remove=remove
        )
        return self._send(calls.tag_environment(name, request))

    def collect_garbage(self, *, dry_run: bool = False) -> GarbageReport:
        return self._send(calls.collect_garbage(dry_run=dry_run))

    def prefetch(
        self, name: str, version: int | None = None, nodes: Iterable[str] = ()
    ) -> Generator[SyncProgress]:
        """Has nodes load a version; tells how it goes, and of each node at last `ready` or `failed`."""
        request = calls.made(
            models.environments.PrefetchRequest, f"prefetch {name}", version=version, nodes=[*nodes]
        )
        call = calls.prefetch_environment(name, request)
        arguments = wire.stream_arguments(call, self._address.timeout)
        with self._opened(arguments) as response:
            parser = wire.parser_of(response, self._address.url)
            for data in response.iter_raw():
                for event in parser.feed(data):
                    if event.event == "progress":
                        yield calls.read_json(models.environments.SyncProgress, event.data)

    @contextmanager
    def get_files(self, name: str, path: str) -> Generator[Iterator[bytes]]:
        """A path of the container as the pieces of a tar."""
        with self._download(calls.get_files(name, path)) as response:
            yield response.iter_raw()

    def put_files(self, name: str, path: str, tar: Pieces) -> Message:
        """Unpacks a tar into a folder of the container."""
        return self._send(calls.put_files(name, path), tar)

    def _send(self, call: calls.Call[T], content: Pieces | None = None) -> T:
        try:
            response = self._http.request(**wire.request_arguments(call, self._address.timeout, content))
        except httpx.TransportError as error:
            raise wire.unreachable(error, self._address.url, self._address.timeout) from error
        wire.check(response, self._address.url)
        return call.read(response)

    @contextmanager
    def _download(self, call: calls.Call[Any]) -> Generator[httpx.Response]:
        with self._opened(wire.request_arguments(call, self._address.timeout)) as response:
            yield response

    @contextmanager
    def _opened(self, arguments: dict[str, Any]) -> Generator[httpx.Response]:
        try:
            with self._http.stream(**arguments) as response:
                if not response.is_success:
                    response.read()
                wire.check(response, self._address.url)
                yield response
        except httpx.TransportError as error:
            raise wire.unreachable(error, self._address.url, self._address.timeout) from error

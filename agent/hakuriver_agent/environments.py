"""Environments: from the archives on the share into the Docker engine.

Version V of environment NAME is the archive `NAME-V.tar`, which holds the image `hakuriver/NAME:V`. An image that is
known to be there costs nothing; one that is missing is loaded once, however many attempts wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import structlog

from hakuriver.models.runner import AttemptSpec
from hakuriver_agent.engines.docker_request import image_name
from hakuriver_agent.engines.port import Launch, StartFailedError
from hakuriver_agent.threads import in_thread

if TYPE_CHECKING:
    from docker.api.client import APIClient

PROGRESS_SECONDS = 1.0
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Load:
    """One image on its way, and who waits for it."""

    task: asyncio.Task[str]
    launches: list[Launch] = field(default_factory=list)


class Environments:
    """The images of one engine. `call` runs a function on the engine's client in a thread."""

    def __init__(self, archives: Path, client: Callable[[], APIClient]) -> None:
        self._archives = archives
        self._client = client
        self._known: dict[str, str] = {}
        self._loads: dict[str, _Load] = {}

    async def image(self, spec: AttemptSpec, launch: Launch) -> tuple[str, str]:
        """Name and digest of the image for `spec`, which is in the engine.

        Raises:
            StartFailedError: there is no such image or archive.
            StartCancelledError: the attempt was killed while it waited.
        """
        name = image_name(spec)
        if name in self._known:
            return name, self._known[name]
        load = self._loads.get(name)
        if load is None:
            archive = self._archives / f"{spec.environment}-{spec.environment_version}.tar"
            load = self._loads[name] = _Load(asyncio.create_task(self._obtain(name, archive)))
            load.task.add_done_callback(lambda task: self._loaded(name, task))
        load.launches.append(launch)
        cancelled = asyncio.create_task(launch.until_cancelled())
        try:
            await asyncio.wait({load.task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        launch.check()
        return name, await asyncio.shield(load.task)

    def forget(self, name: str) -> None:
        """The engine turned out not to have it."""
        self._known.pop(name, None)

    async def _obtain(self, name: str, archive: Path) -> str:
        loop = asyncio.get_running_loop()
        digest = await in_thread(lambda: self._digest(name))
        if digest is None:
            log.info("loading an environment", image=name, archive=str(archive))

            def told(line: str) -> None:
                loop.call_soon_threadsafe(self._tell, name, line)

            await in_thread(lambda: self._load(name, archive, told))
            digest = await in_thread(lambda: self._digest(name))
        if digest is None:
            raise StartFailedError(f"the archive {archive.name} does not hold the image {name}")
        self._known[name] = digest
        return digest

    def _loaded(self, name: str, task: asyncio.Task[str]) -> None:
        del self._loads[name]
        if not task.cancelled() and (error := task.exception()):
            log.warning("cannot provide an environment", image=name, error=str(error))

    def _tell(self, name: str, line: str) -> None:
        if load := self._loads.get(name):
            for launch in load.launches:
                if not launch.cancelled:
                    launch.progress(line)

    def _digest(self, name: str) -> str | None:
        from docker.errors import ImageNotFound  # noqa: PLC0415 - costs memory where there is no Docker

        with contextlib.suppress(ImageNotFound):
            client: Any = self._client()
            return str(client.inspect_image(name)["Id"])
        return None

    def _load(self, name: str, archive: Path, told: Callable[[str], None]) -> None:
        from docker.errors import APIError  # noqa: PLC0415 - see `_digest`

        try:
            with archive.open("rb") as file:
                reader = _CountingReader(
                    file, archive.stat().st_size, lambda part: told(f"loading {name}: {part}")
                )
                client: Any = self._client()
                for line in client.load_image(reader, quiet=True):
                    if "error" in line:
                        raise StartFailedError(f"cannot load {archive.name}: {line['error']}")
        except FileNotFoundError:
            raise StartFailedError(
                f"the archive {archive.name} is not in the share's folder {self._archives.name}"
            ) from None
        except OSError as error:
            raise StartFailedError(f"cannot read {archive.name}: {error.strerror or error}") from None
        except APIError as error:
            raise StartFailedError(f"cannot load {archive.name}: {error.explanation}") from None


class _CountingReader:
    """A file that tells how far it has been read."""

    def __init__(self, file: IO[bytes], size: int, told: Callable[[str], None]) -> None:
        self._file = file
        self._size = max(1, size)
        self._told = told
        self._read = 0
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __iter__(self) -> _CountingReader:
        return self

    def __next__(self) -> bytes:
        data = self._file.read(1 << 20)
        if not data:
            raise StopIteration
        self._read += len(data)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            self._told(f"{100 * self._read // self._size} %")
        return data

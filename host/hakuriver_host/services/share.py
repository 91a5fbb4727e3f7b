"""The share, as the Host mounts it: its folders, its marker, and whether it can be written."""

from __future__ import annotations

import asyncio
import os
import stat
import uuid
from pathlib import Path

import structlog
from sqlalchemy import Engine, insert
from sqlmodel import SQLModel

from hakuriver.config import Settings
from hakuriver.errors import StorageError
from hakuriver.models.runner import SHARED_MARKER
from hakuriver.threads import call_within, start_thread
from hakuriver_host.db.repository import Repository
from hakuriver_host.db.tables import MetaRow
from hakuriver_host.services.threads import ShareCalls

log = structlog.get_logger(__name__)

_FOR_ALL = "shared_data"
_FOLDERS = ("task_outputs", "task_errors", _FOR_ALL)
_KEY = "share_id"
_PROBE_EVERY = 15.0
_PROBE_SECONDS = 10.0
_OPEN_SECONDS = 60.0


class Share:
    """`share_id` names it; `problem` says what is wrong with it now, if anything."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self.calls = ShareCalls(settings.paths.shared_dir)
        self.share_id = ""
        self.problem = ""

    def open(self) -> None:
        """Makes its folders, and marks it as this Host's.

        Raises:
            StorageError: it is missing, does not answer, cannot be written, or is another Host's.

        """
        try:
            call_within(self._open, _OPEN_SECONDS)
        except TimeoutError:
            raise StorageError(
                f"the shared directory {self._settings.paths.shared_dir} does not answer",
                "see whether its file server is up and the network reaches it, then mount it again",
            ) from None

    def _open(self) -> None:
        root = self._settings.paths.shared_dir
        hint = "make the directory or mount the share, let the Host's user write it, and name it in paths.shared_dir"
        if not root.is_dir():
            raise StorageError(f"the shared directory {root} is not there", hint)
        try:
            for folder in _FOLDERS:
                _make(root / folder)
            self._settings.container_dir.mkdir(parents=True, exist_ok=True)
            self.share_id = self._mark(root / SHARED_MARKER)
        except OSError as error:
            raise StorageError(f"cannot write the shared directory {root}: {error.strerror}", hint) from None

    async def watch(self) -> None:
        """Looks now and then whether it can still be written."""
        looking: asyncio.Future[str] | None = None
        while True:
            # One look at a time: on a share that hangs they would gather.
            if looking is None or looking.done():
                looking = start_thread(lambda: _probe(self._settings.paths.shared_dir))
            await asyncio.wait({looking}, timeout=_PROBE_SECONDS)
            problem = looking.result() if looking.done() else "the Host's shared directory does not answer"
            if problem and problem != self.problem:
                log.error("the share has a problem", cause=problem)
            self.problem = problem
            await asyncio.sleep(_PROBE_EVERY)

    def _mark(self, marker: Path) -> str:
        """The share's id: what the database knows, else what the marker says, else a new one."""
        known = Repository(self._engine).meta(_KEY)
        found = marker.read_text().strip() if marker.exists() else None
        share_id = known or found or str(uuid.uuid4())
        if found and found != share_id:
            raise StorageError(
                f"the shared directory {marker.parent} belongs to another cluster",
                f"name the right one in paths.shared_dir; if it shall be this cluster's, remove {marker}",
            )
        if not found:
            marker.write_text(share_id + "\n")
        if not known:
            with self._engine.begin() as connection:
                connection.execute(
                    insert(SQLModel.metadata.tables[str(MetaRow.__tablename__)]),
                    [{"key": _KEY, "value": share_id}],
                )
        return share_id


def _make(folder: Path) -> None:
    """What tasks share is for every user to write, like /tmp. One that is there stays as somebody wanted it."""
    if folder.is_dir():
        return
    folder.mkdir(exist_ok=True)
    if folder.name == _FOR_ALL:
        folder.chmod(0o777 | stat.S_ISVTX)


def _probe(root: Path) -> str:
    """Writes and removes a small file."""
    path = root / f".hakuriver-probe-{os.getpid()}"
    try:
        path.write_bytes(b"probe\n")
        path.unlink()
    except OSError as error:
        return f"the Host cannot write the shared directory: {error.strerror}"
    return ""

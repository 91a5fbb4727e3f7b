"""The folders of one Runner, and which paths of a task's request may be used.

State is readable by the Runner's user alone. What a task may mount is decided here on resolved paths, so that no
symbolic link leads out of the allowed roots.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from hakuriver.config import Settings
from hakuriver.errors import StorageError
from hakuriver.models.runner import SHARED_MARKER
from hakuriver.threads import in_thread

SHARED_DATA = "shared_data"
LOGS = ("task_outputs", "task_errors")


class ForbiddenPathError(Exception):
    """The path may not be used by a task; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things lie. `of` makes no folder; `prepare` does."""

    shared: Path
    containers: Path
    local_temp: Path
    state: Path
    """Of this Runner: `<state_dir>/runner-<name>`."""
    mount_roots: tuple[Path, ...]
    private: tuple[Path, ...]
    """What no task may see."""

    @classmethod
    def of(cls, settings: Settings) -> Folders:
        shared = settings.paths.shared_dir.expanduser().absolute()
        containers = shared / settings.docker.container_dir
        state_root = settings.paths.state_dir.expanduser().absolute()
        roots = [root.expanduser().absolute() for root in settings.runner.allowed_mount_roots]
        return cls(
            shared=shared,
            containers=containers,
            local_temp=settings.paths.local_temp_dir.expanduser().absolute(),
            state=state_root / f"runner-{settings.runner.name}",
            mount_roots=(shared / SHARED_DATA, *roots),
            private=(state_root, containers, *(shared / name for name in LOGS)),
        )

    @property
    def shared_data(self) -> Path:
        return self.shared / SHARED_DATA

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    @property
    def marker(self) -> Path:
        """Written by the Host; where it is missing the share is not mounted."""
        return self.shared / SHARED_MARKER

    @property
    def held_sources(self) -> Path:
        """Of mounts, while containers are started."""
        return self.state / "mounts"

    @property
    def vps_tools(self) -> Path:
        """Programs that every VPS has; see `hakuriver_agent.ssh.tools`."""
        return self.state / "vps-tools"

    def vps_sockets(self, task_id: int, attempt: int) -> Path:
        """Where a VPS finds the sockets of forwarded agents."""
        return self.state / "vps-sockets" / f"{task_id}-{attempt}"

    def scratch(self, task_id: int, attempt: int) -> Path:
        return self.local_temp / f"{task_id}-{attempt}"

    def prepare(self) -> None:
        """Makes the local folders.

        Raises:
            StorageError: one cannot be made or written.
        """
        _make(self.state, 0o700, "paths.state_dir")
        _make(self.local_temp, 0o711, "paths.local_temp_dir")

    def log_file(self, relative: str) -> Path:
        """The file on the share that `relative` names.

        Raises:
            ForbiddenPathError: it is outside the share.
        """
        path = Path(relative)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in relative:
            raise ForbiddenPathError(f"the log path {relative!r} is not inside the share")
        return self.shared / path

    def mount_source(self, source: str) -> Path:
        """The resolved `source` of a bind mount. Touches the file systems: call it in a thread.

        Raises:
            ForbiddenPathError: a task may not mount it, or it is not there.
        """
        real = Path(os.path.realpath(source))
        roots = [Path(os.path.realpath(root)) for root in self.mount_roots]
        if not any(real.is_relative_to(root) for root in roots):
            raise ForbiddenPathError(
                f"{source} is not under a folder that this node lets tasks mount (runner.allowed_mount_roots)"
            )
        for path in map(Path, map(os.path.realpath, self.private)):
            if real.is_relative_to(path) or path.is_relative_to(real):
                raise ForbiddenPathError(f"{source} holds HakuRiver's own files, which no task may mount")
        if not real.exists():
            raise ForbiddenPathError(f"the mount source {source} does not exist on this node")
        if real.is_dir():
            # What is mounted on demand is mounted now: opening it as `open_without_links` does would not do it.
            with contextlib.suppress(OSError):
                os.close(os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return real


def open_without_links(path: Path) -> int:
    """Opens a resolved path for naming it alone (`O_PATH`), by its parts, following no link.

    Raises:
        ForbiddenPathError: there is a link or nothing now, so that it is not what was resolved.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open("/", flags)
    for part in path.parts[1:]:
        above = descriptor
        try:
            descriptor = os.open(part, flags, dir_fd=above)
        except OSError as error:
            raise ForbiddenPathError(f"{path} has changed: {error.strerror}") from None
        finally:
            os.close(above)
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ForbiddenPathError(f"{path} has changed: it leads over a link now")
    return descriptor


def make_scratch(path: Path, owner: tuple[int, int] | None) -> None:
    """Makes the scratch folder of an attempt, for its user alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner is not None and (path.stat().st_uid, path.stat().st_gid) != owner:
        os.chown(path, *owner)


async def remove_scratch(path: Path) -> None:
    """Removes the scratch folder of an attempt; in a thread, unless it is empty or missing."""
    try:
        path.rmdir()  # noqa: ASYNC240 - of the local disk, and empty mostly: less than a thread costs
    except FileNotFoundError:
        return
    except OSError:
        await in_thread(lambda: shutil.rmtree(path, ignore_errors=True))


def _make(path: Path, mode: int, setting: str) -> None:
    hint = f"make the folder writable for the Runner's user, or set {setting}"
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
    except OSError as error:
        raise StorageError(f"cannot make {path}: {error.strerror}", hint) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write in {path}", hint)

"""The node's two secrets: by one it proves itself to the Host, by the other the Host proves itself to it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from pathlib import Path

from hakuriver.errors import StorageError
from hakuriver.models.runner import JoinResponse


class Tokens:
    """Kept in two files that only the Runner's user reads."""

    def __init__(self, folder: Path) -> None:
        self._node_file = folder / "node.token"
        self._control_file = folder / "control.token"
        self.node = _read(self._node_file)
        self._control_hash = _hash(_read(self._control_file))

    @property
    def joined(self) -> bool:
        return bool(self.node) and self._control_hash is not None

    def accepts(self, bearer: str) -> bool:
        """Whether it is the control token; compared in constant time."""
        given = _hash(bearer)
        return (
            given is not None
            and self._control_hash is not None
            and hmac.compare_digest(given, self._control_hash)
        )

    def keep(self, response: JoinResponse) -> None:
        """Writes new secrets.

        Raises:
            StorageError: they cannot be written.
        """
        try:
            _write(self._control_file, response.control_token)
            _write(self._node_file, response.node_token)
        except OSError as error:
            raise StorageError(f"cannot keep the node's tokens: {error}", "check paths.state_dir") from None
        self.node = response.node_token
        self._control_hash = _hash(response.control_token)

    def drop(self) -> None:
        """The Host does not know them any more. The control token stays until there is a new one."""
        self.node = ""
        with contextlib.suppress(OSError):
            self._node_file.unlink()


def _hash(token: str) -> bytes | None:
    return hashlib.sha256(token.encode()).digest() if token else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {path}: {error}", "delete it, and the Runner joins again") from None


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)

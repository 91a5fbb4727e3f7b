"""The public keys that a person has here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from hakuriver.errors import UsageError
from hakuriver.keys import parse_public_key

_NAMES = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub", "id_ed25519_sk.pub", "id_ecdsa_sk.pub")
"""As ssh(1) looks for them (IdentityFile), the newer kinds first."""


def default_files() -> list[Path]:
    """Those of ~/.ssh that are there."""
    folder = Path("~/.ssh").expanduser()
    return [folder / name for name in _NAMES if (folder / name).is_file()]


def default_keys(say: Callable[[str], None]) -> list[str]:
    """What the files of ~/.ssh hold; one that is of no use is told of and passed over, if another is.

    Raises:
        UsageError: none of them is of use; it is what is wrong with the first.
    """
    keys: list[str] = []
    errors: list[UsageError] = []
    for path in default_files():
        try:
            keys.append(read(path))
        except UsageError as error:
            errors.append(error)
    if errors and not keys:
        raise errors[0]
    for unusable in errors:
        say(f"warning: {unusable.message}; it is passed over")
    return keys


def read(path: Path) -> str:
    """The key in a file; `-` is stdin.

    Raises:
        UsageError: it cannot be read, or is no public key.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"cannot read {path}: {reason}", "name the file of a public key") from None
    return checked(text, str(path))


def checked(text: str, where: str) -> str:
    """The key as a line.

    Raises:
        UsageError: it is none.
    """
    try:
        return parse_public_key(text).line
    except ValueError as error:
        raise UsageError(f"{where}: {error}", "give a public key, such as ~/.ssh/id_ed25519.pub") from None

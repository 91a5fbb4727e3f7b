"""Public keys of SSH, as a line of `authorized_keys` has them: what is one, and what is wrong with one that is not.

The line is described in sshd(8), the blob in RFC 4253, 6.6: fields that each begin with their length, the first of
them the key's type.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

KINDS = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""By type of key: how many fields its blob has."""
_LONGEST = 16_384
_LEAST_RSA_BYTES = 256
"""2048 bits."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    kind: str
    blob: bytes
    comment: str = ""

    @property
    def line(self) -> str:
        """As `authorized_keys` has it."""
        return f"{self.bare} {self.comment}".rstrip()

    @property
    def bare(self) -> str:
        """Without its comment: what tells one key from another."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        import hashlib  # noqa: PLC0415  (slow to load, and most keys are only passed on)

        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


def parse_public_key(text: str) -> PublicKey:
    """One key.

    Raises:
        ValueError: it is none; the message says what is wrong.
    """
    if "PRIVATE KEY" in text:
        raise ValueError(
            "that is a private key, which nobody else may see: give the public one, whose file ends in .pub"
        )
    if len(text) > _LONGEST:
        raise ValueError("is too long for a public key")
    kind, _, rest = text.strip().partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if kind not in KINDS:
        raise ValueError(
            f"{kind[:40]!r} is no type of public key; a line begins with one, such as ssh-ed25519"
        )
    if any(not character.isprintable() for character in comment):
        raise ValueError("holds more than one line")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError(f"the {kind} key is damaged: its second word is not base64") from None
    fields = _fields(blob)
    if fields is None or len(fields) != KINDS[kind] or fields[0] != kind.encode():
        raise ValueError(f"the {kind} key is damaged: a piece of it is missing, or of another key")
    if kind == "ssh-rsa" and len(fields[2].lstrip(b"\0")) < _LEAST_RSA_BYTES:
        raise ValueError("the RSA key has fewer than 2048 bits: make another with `ssh-keygen -t ed25519`")
    return PublicKey(kind, blob, comment.strip())


def parse_public_keys(text: str) -> list[PublicKey]:
    """The keys of a text with one in each line; empty lines and # lines are left aside.

    Raises:
        ValueError: one of them is none.
    """
    if "PRIVATE KEY" in text:
        parse_public_key(text)
    lines = (line.strip() for line in text.splitlines())
    return [parse_public_key(line) for line in lines if line and not line.startswith("#")]


def _fields(blob: bytes) -> list[bytes] | None:
    """The fields of a blob; none when they do not end where it ends."""
    found, at = [], 0
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4], "big")
        if at + 4 + length > len(blob):
            return None
        found.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return found

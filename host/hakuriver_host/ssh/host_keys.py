"""Host keys made from seeds: the same seed is the same key. What makes them is loaded when a key is asked for."""

from __future__ import annotations

from functools import lru_cache


def private_pem(seed: bytes) -> str:
    """The Ed25519 key (RFC 8032, 5.1.5) of a seed of 32 bytes, in OpenSSH's format."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as said above
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@lru_cache(maxsize=10_000)
def public_line(seed: bytes) -> str:
    """Its public half, as `known_hosts` has it, without comment."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as said above
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

"""Host keys made from seeds: the same seed is the same key."""

from __future__ import annotations

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def private_pem(seed: bytes) -> str:
    """The Ed25519 key (RFC 8032, 5.1.5) of a seed of 32 bytes, in OpenSSH's format."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def public_line(seed: bytes) -> str:
    """Its public half, as `known_hosts` has it, without comment."""
    line = asyncssh.import_private_key(private_pem(seed)).export_public_key().decode()
    return " ".join(line.split()[:2])

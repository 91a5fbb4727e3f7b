"""What is a public key, and what is said of what is none."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from hakuriver.keys import parse_public_key, parse_public_keys


def made(folder: Path, kind: str, bits: str | None = None) -> Path:
    path = folder / f"{kind}{bits}"
    size = ["-b", bits] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "a b", "-f", path], check=True)
    return path


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("ed25519", None), ("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")],
)
def test_keys_as_ssh_makes_and_shows_them(tmp_path: Path, kind: str, bits: str | None) -> None:
    path = made(tmp_path, kind, bits)
    text = path.with_name(path.name + ".pub").read_text("utf-8")
    key = parse_public_key(text)
    assert key.line == text.strip()
    assert key.comment == "a b"
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[1] == key.fingerprint


def test_a_private_key_is_told_apart_and_not_repeated(tmp_path: Path) -> None:
    text = made(tmp_path, "ed25519").read_text("utf-8")
    with pytest.raises(ValueError, match="private key") as told:
        parse_public_keys(text)
    assert text.splitlines()[1][:20] not in str(told.value)


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no type of public key"),
        ("hello there", "'hello' is no type"),
        ("ssh-dss AAAA", "'ssh-dss' is no type"),
        ('command="id" ssh-ed25519 AAAA', "is no type"),
        ("ssh-ed25519", "damaged"),
        ("ssh-ed25519 !!!!", "not base64"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519')}", "damaged"),
        (f"ssh-ed25519 {blob(b'ssh-rsa', b'x' * 32)}", "damaged"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 32)[:-8]}", "damaged"),
        (f"ssh-rsa {blob(b'ssh-rsa', b'xx', b'y' * 128)}", "2048 bits"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 32)} a\nssh-rsa b", "more than one line"),
        ("ssh-ed25519 " + "A" * 20_000, "too long"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_public_key(text)


def test_several_lines() -> None:
    line = f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 32)}"
    assert [key.comment for key in parse_public_keys(f"# mine\n{line} one\n\n{line} two\n")] == ["one", "two"]

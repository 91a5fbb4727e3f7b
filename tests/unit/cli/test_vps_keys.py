"""Which keys `vps create` gives a VPS when none is named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hakuriver.models.submission import OWN_KEYS
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import made

USAGE = 2


@pytest.fixture(autouse=True)
def _accepting(host: FakeHost) -> None:
    host.on("POST", "/api/submit", made(11))
    host.on("GET", "/api/keys", [])


@pytest.fixture
def folder(tmp_path: Path, _alone: None) -> Path:
    made_here = tmp_path / "home/.ssh"
    made_here.mkdir(parents=True)
    return made_here


def new_key(path: Path, *options: str) -> str:
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "me", "-f", path, *options], check=True)
    return path.with_suffix(".pub").read_text("utf-8").strip()


def too_short(path: Path) -> None:
    new_key(path, "-t", "rsa", "-b", "1024")


def asked(host: FakeHost) -> str:
    (body,) = host.bodies("/api/submit")
    found: str = body["command"]
    return found


def test_all_that_are_there(commands: Commands, host: FakeHost, folder: Path) -> None:
    keys = [new_key(folder / "id_ed25519", "-t", "ed25519"), new_key(folder / "id_ecdsa", "-t", "ecdsa")]
    done = commands("vps", "create")
    assert (done.code, done.err) == (0, "")
    assert asked(host).splitlines() == keys


def test_one_of_no_use_is_passed_over(commands: Commands, host: FakeHost, folder: Path) -> None:
    key = new_key(folder / "id_ed25519", "-t", "ed25519")
    too_short(folder / "id_rsa")
    done = commands("vps", "create")
    assert done.code == 0
    assert asked(host) == key
    (line,) = done.err.splitlines()
    assert line.startswith(f"warning: {folder}/id_rsa.pub: ")
    assert line.endswith("; it is passed over")


def test_none_of_use(commands: Commands, host: FakeHost, folder: Path) -> None:
    (folder / "id_ed25519.pub").write_text("hello\n", "utf-8")
    too_short(folder / "id_rsa")
    done = commands("vps", "create")
    assert done.code == USAGE
    assert f"{folder}/id_ed25519.pub" in done.err
    assert "id_rsa" not in done.err
    assert not host.bodies("/api/submit")


def test_one_that_is_named_is_not_passed_over(commands: Commands, host: FakeHost, folder: Path) -> None:
    new_key(folder / "id_ed25519", "-t", "ed25519")
    too_short(folder / "id_rsa")
    assert commands("vps", "create", "--public-key-file", f"{folder}/id_rsa.pub").code == USAGE
    assert not host.bodies("/api/submit")


def test_the_registered_alone(commands: Commands, host: FakeHost, folder: Path) -> None:
    del folder
    listed = {
        "key_id": "k",
        "user": "ada",
        "label": "l",
        "fingerprint": "f",
        "public_key": "p",
        "created_at": "2030-01-01T00:00:00Z",
    }
    host.on("GET", "/api/keys", [listed])
    assert commands("vps", "create").code == 0
    assert asked(host) == OWN_KEYS

"""What is told of files, accounts and certificates of a machine, and which of them are not as they are to be."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.filters import load

look = load("hakuriver_look")
accounts = load("hakuriver_accounts")
certificates = load("hakuriver_certificates")

_PROGRAM = Path(__file__).resolve().parents[3] / "ansible/roles/hakuriver/files/look.py"


def asked(**what: Any) -> dict[str, Any]:
    """As a role asks: the program as an argument, without what the machine's Python has beside its own library."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM.read_text("utf-8"), json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = look.told(f"sudo: unable to resolve host\r\n{done.stdout}\r\nbye\r\n")
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir(mode=0o711)
    (tmp_path / "file").write_text("a = 1\n", "utf-8")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "to-folder").symlink_to(tmp_path / "folder")
    (tmp_path / "to-file").symlink_to("file")
    return tmp_path


def wanted(tree: Path) -> dict[str, dict[str, Any]]:
    return {
        "folder": {"path": f"{tree}/folder", "kind": "folder", "owner": os.getuid(), "mode": "0711"},
        "to-folder": {"path": f"{tree}/to-folder", "kind": "folder", "mode": "0711"},
        "file": {
            "path": f"{tree}/file",
            "kind": "file",
            "owner": os.getuid(),
            "group": str(os.getgid()),
            "mode": "0640",
            "content": "a = 1\n",
        },
        "to-file": {"path": f"{tree}/to-file", "kind": "link", "target": "file"},
        "gone": {"path": f"{tree}/gone", "kind": "absent"},
        "below-a-file": {"path": f"{tree}/file/gone", "kind": "absent"},
    }


def test_what_is_as_it_is_to_be_is_left_alone(tree: Path) -> None:
    right = wanted(tree).values()
    assert look.unlike(asked(paths=[one["path"] for one in right]), right) == []


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("folder", {"mode": "0700"}),
        ("folder", {"owner": "nobody-here"}),
        ("folder", {"kind": "file"}),
        ("file", {"content": "a = 2\n"}),
        ("file", {"mode": "640", "group": "nobody-here"}),
        ("file", {"mode": "0644"}),
        ("file", {"kind": "absent"}),
        ("file", {"kind": "folder"}),
        ("to-file", {"kind": "file"}),
        ("to-file", {"target": "other"}),
        ("gone", {"kind": "file"}),
        ("gone", {"kind": "folder"}),
    ],
)
def test_what_is_not_is_named(tree: Path, name: str, changed: dict[str, Any]) -> None:
    one = {**wanted(tree)[name], **changed}
    assert look.unlike(asked(paths=[one["path"]]), [one]) == [one["path"]]


def test_a_machine_with_labels_is_left_to_the_modules(tree: Path) -> None:
    right = wanted(tree).values()
    seen = {**asked(paths=[one["path"] for one in right]), "labels": True}
    assert look.unlike(seen, right) == [one["path"] for one in right]


def test_what_is_told_is_found_among_what_is_said_around_it() -> None:
    with pytest.raises(ValueError, match="does not tell how it is: sh: python3: not found"):
        look.told("Warning\r\nsh: python3: not found\r\n")
    with pytest.raises(ValueError, match="it says nothing"):
        look.told("")


def test_files_together_have_the_digest_that_the_shell_gives_them(tree: Path) -> None:
    paths = [f"{tree}/file", f"{tree}/gone", f"{tree}/to-file"]
    command = 'sha256sum -- "$@" 2>/dev/null | sha256sum | cut -c 1-64'
    done = subprocess.run(["sh", "-c", command, "sh", *paths], capture_output=True, text=True, check=True)
    assert asked(together=paths)["together"] == done.stdout.strip()


def test_a_text_is_not_read_through_a_link(tree: Path) -> None:
    texts = [f"{tree}/file", f"{tree}/to-file", f"{tree}/gone", f"{tree}/folder"]
    assert list(asked(texts=texts)["texts"].values()) == ["a = 1\n", None, None, None]
    assert list(asked(lines=texts[:3:2])["lines"].values()) == ["a = 1", ""]


def test_accounts_have_the_fields_that_getent_gives_them() -> None:
    found = asked(accounts=True)
    for database in ("passwd", "group"):
        done = subprocess.run(["getent", database, "root"], capture_output=True, text=True, check=True)
        assert found[database]["root"] == done.stdout.strip("\n").split(":")[1:]


def test_the_stamp_is_read_from_the_process() -> None:
    stamp = runpy.run_path(str(_PROGRAM))["stamp"]
    command = [sys.executable, "-c", "print(flush=True); input()"]
    environment = {"HAKURIVER_STAMP": "abc"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        process.stdout.readline()
        assert stamp(process.pid) == "abc"
        process.communicate(b"\n")
    assert not stamp(process.pid)


# Accounts

PASSWD = {"ada": ["x", "2001", "2001", "Ada", "/home/ada", "/bin/bash"]}
GROUPS = {"ada": ["x", "2001", ""], "docker": ["x", "990", "eve,ada"], "lab": ["x", "3000", ""]}
ADA = {"name": "ada", "uid": 2001}


@pytest.mark.parametrize(
    "asks",
    [{}, {"docker": True}, {"groups": ["docker"]}, {"comment": "Ada"}, {"home": "/home/ada"}, {"gid": 2001}],
)
def test_an_account_that_is_right_is_left_alone(asks: dict[str, Any]) -> None:
    assert accounts.accounts_unlike([{**ADA, **asks}], [{"name": "bob"}], PASSWD, GROUPS) == []


@pytest.mark.parametrize(
    "asks",
    [
        {"name": "eve"},
        {"uid": 2002},
        {"gid": 7},
        {"group": "lab"},
        {"group": "none"},
        {"groups": ["lab"]},
        {"groups": ["none"]},
        {"comment": "Countess"},
        {"home": "/srv/ada"},
        {"shell": "/bin/sh"},
    ],
)
def test_an_account_that_is_not_is_named(asks: dict[str, Any]) -> None:
    one = {**ADA, **asks}
    assert accounts.accounts_unlike([one], [], PASSWD, GROUPS) == [one["name"]]


def test_an_account_that_is_to_be_gone_is_named() -> None:
    assert accounts.accounts_unlike([], [ADA], PASSWD, GROUPS) == ["ada"]


def test_the_engines_group_is_asked_for_where_it_is() -> None:
    without = {"ada": GROUPS["ada"]}
    assert accounts.accounts_unlike([{**ADA, "docker": True}], [], PASSWD, without) == []


def test_files_of_keys() -> None:
    one = {**ADA, "ssh_keys": ["ssh-ed25519 AAAAC3 ada"]}
    texts = {"/home/ada/.ssh/authorized_keys": "# mine\n"}
    folder, file = accounts.key_files([one], PASSWD, texts)
    assert folder["path"] == "/home/ada/.ssh"
    assert file["content"] == "# mine\nssh-ed25519 AAAAC3 ada\n"
    assert (
        accounts.key_files([one], PASSWD, texts, exclusive=True)[1]["content"] == "ssh-ed25519 AAAAC3 ada\n"
    )


# Certificates

RIGHT = ["notAfter=Jan 31 00:00:00 2027 GMT", "    DNS:n1", "trusted", "fits"]


def test_certificates_that_are_due() -> None:
    def due(lines: list[str]) -> Any:
        now = "2026-12-01T00:00:00+00:00"
        return certificates.kinds_due(lines, ["host", "runner"], iter(["DNS:n1"]), now, 30)

    assert due([]) == ["host", "runner"]
    assert due(["{}", "= host", *RIGHT, "= runner", *RIGHT]) == []
    assert due(["= host", *RIGHT, "= runner", *RIGHT[:-1]]) == ["runner"]
    assert due(["= host", "= runner", *RIGHT]) == ["host"]

"""Where the inventory is found, what is wrong with one, and the one that `cluster init` writes."""

from __future__ import annotations

import io
import pwd
from pathlib import Path
from typing import Any

import pytest
import yaml

from hakuriver.errors import NotFoundError
from hakuriver_cli.deploy import inventory
from hakuriver_cli.deploy.inventory import host_url, locate, machines
from unit.cli.conftest import Commands


def test_it_is_looked_for_in_order(tmp_path: Path) -> None:
    cwd, home = tmp_path / "cwd", tmp_path / "home"
    cwd.mkdir()
    with pytest.raises(NotFoundError) as error:
        locate(None, {}, cwd, home)
    assert "cluster init" in error.value.hint
    found = []
    for path in (home / ".hakuriver/cluster/hosts.yml", cwd / "inventory/hosts.yml", cwd / "hosts.yml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        found.append(locate(None, {}, cwd, home) == path)
    assert found == [True, True, True]
    named = tmp_path / "named"
    named.mkdir()
    assert locate(None, {inventory.VARIABLE: str(named)}, cwd, home) == named
    assert locate(cwd, {inventory.VARIABLE: str(named)}, cwd, home) == cwd / "hosts.yml"


def listing(hosts: list[str], runners: list[str], **variables: dict[str, Any]) -> dict[str, Any]:
    return {
        "_meta": {"hostvars": variables},
        "hakuriver_host": {"hosts": hosts},
        "hakuriver_runners": {"hosts": runners},
    }


def test_where_the_host_answers() -> None:
    assert host_url(machines(listing(["a"], ["b"]))) == "https://a:8000"
    own = {"hakuriver_tls": False, "hakuriver_host_address": "10.0.0.1", "hakuriver_host_port": 9}
    assert host_url(machines(listing(["a"], ["b"], a=own))) == "http://10.0.0.1:9"
    assert host_url(machines(listing([], ["b"]))) == ""


def test_init_writes_an_inventory_and_overwrites_nothing(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    words = ["--non-interactive", "--name", "lab", "--host", "head=10.0.0.1", "--ssh-user", "ada"]
    words += ["--runner", "node-1=10.0.0.11", "--runner", "head", "--user", "bob"]
    done = commands("cluster", "init", str(folder), *words)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        str(folder / name) for name in ("hosts.yml", "group_vars/all.yml", ".gitignore")
    ]
    groups = yaml.safe_load((folder / "hosts.yml").read_text())["hakuriver"]["children"]
    assert groups["hakuriver_host"]["hosts"] == {"head": {"ansible_host": "10.0.0.1"}}
    assert groups["hakuriver_runners"]["hosts"] == {"node-1": {"ansible_host": "10.0.0.11"}, "head": None}
    variables = yaml.safe_load((folder / "group_vars/all.yml").read_text())
    assert variables["ansible_user"] == "ada"
    assert variables["ansible_become"] is True
    assert variables["hakuriver_shared_dir"] == "/mnt/hakuriver"
    assert (variables["hakuriver_uid"], variables["hakuriver_gid"]) == (640, 640)
    before = (folder / "hosts.yml").read_text()
    again = commands("cluster", "init", str(folder), *words)
    assert again.code == 5
    assert (folder / "hosts.yml").read_text() == before


def test_init_for_this_machine(commands: Commands, tmp_path: Path) -> None:
    done = commands("cluster", "init", "--local", str(tmp_path / "here"))
    assert done.code == 0
    groups = yaml.safe_load((tmp_path / "here/hosts.yml").read_text())["hakuriver"]["children"]
    ((name, own),) = groups["hakuriver_host"]["hosts"].items()
    assert own == {"ansible_connection": "local"}
    assert list(groups["hakuriver_runners"]["hosts"]) == [name]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--host", "a b"], "no machine"),
        (["--host", "a", "--runner", "b=a"], "same address"),
        (["--host", "a=1", "--runner", "a=2"], "two machines are called a"),
        (["--host", "a", "--runner", "b", "--share", "local"], "one machine alone"),
        (["--host", "a", "--ssh-user", "A B"], "no name of a user"),
        (["--host", "a", "--share-path", "mnt"], "no absolute path"),
        (["--host", "a", "--user", "Bob!"], "no name of a user"),
        (["--host", "a", "--name", "a/b"], "no name for a cluster"),
        ([], "which machine is the Host"),
        (["--local", "--host", "a"], "one machine"),
    ],
)
def test_init_refuses_what_cannot_be(commands: Commands, tmp_path: Path, words: list[str], what: str) -> None:
    done = commands("cluster", "init", str(tmp_path / "lab"), "--non-interactive", *words)
    assert done.code == 2
    assert what in done.err
    assert not (tmp_path / "lab").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_init_asks_and_asks_again(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        "lab",
        "",
        "head=10.0.0.1",
        "node-1=10.0.0.1",
        "head node-1=10.0.0.2",
        "ftp",
        "local",
        "",
        "ada",
    ]
    monkeypatch.setattr("sys.stdin", Terminal("\n".join([*answers, "mnt", "/data", "bob eve", ""])))
    done = commands("cluster", "init", str(tmp_path / "lab"))
    assert done.code == 0, done.err
    errors = [line for line in done.err.splitlines() if "error: " in line]
    wrong = ("which machine", "same address", "no kind of share", "serves one machine", "no absolute path")
    assert all(what in line for what, line in zip(wrong, errors, strict=True)), errors
    groups = yaml.safe_load((tmp_path / "lab/hosts.yml").read_text())["hakuriver"]["children"]
    assert groups["hakuriver_runners"]["hosts"] == {"head": None, "node-1": {"ansible_host": "10.0.0.2"}}
    variables = yaml.safe_load((tmp_path / "lab/group_vars/all.yml").read_text())
    assert variables["shared_storage_type"] == "nfs"
    assert variables["ansible_user"] == "ada"
    assert variables["hakuriver_shared_dir"] == "/data"
    assert [one["name"] for one in variables["users_accounts"]] == ["bob", "eve"]


def test_init_does_not_wait_for_answers_that_do_not_come(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("lab\n"))
    done = commands("cluster", "init", str(tmp_path / "lab"))
    assert done.code == 2
    assert "no answer came" in done.err


def test_who_has_an_account_keeps_its_number(commands: Commands, tmp_path: Path) -> None:
    account = next(one for one in pwd.getpwall() if one.pw_uid > 0)
    users = f"--local --user {account.pw_name} --user nobody-yet"
    assert commands("cluster", "init", str(tmp_path / "lab"), *users.split()).code == 0
    variables = yaml.safe_load((tmp_path / "lab/group_vars/all.yml").read_text())
    assert [one["uid"] for one in variables["users_accounts"]] == [account.pw_uid, 2001]

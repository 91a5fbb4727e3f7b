"""What is asked for becomes an argument list, and the request that the runner reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hakuriver.errors import UsageError
from hakuriver_cli.deploy.options import Playing, play_of
from hakuriver_cli.deploy.play import Play, Secret, arguments, inventory_arguments, parse_variables
from hakuriver_cli.deploy.port import Job, environment, request, worker_arguments

HOSTS = Path("/inventory/hosts.yml")


def test_a_plain_play_needs_no_options() -> None:
    assert arguments(Play("deploy", "site", HOSTS)) == []


def test_every_option_of_a_play() -> None:
    play = Play(
        "deploy",
        "site",
        HOSTS,
        limit="node-1,node-2",
        tags=("docker", "tls"),
        skip_tags=("firewall",),
        check=True,
        diff=True,
        verbose=True,
        vault_password_file=Path("/vault"),
        ask=(Secret.SSH, Secret.BECOME, Secret.VAULT),
    )
    assert arguments(play, [Path("/private/variables-0.json")]) == [
        "--limit",
        "node-1,node-2",
        "--tags",
        "docker,tls",
        "--skip-tags",
        "firewall",
        "--check",
        "--diff",
        "-v",
        "--vault-password-file",
        "/vault",
        "--ask-pass",
        "--ask-become-pass",
        "--ask-vault-password",
        "--extra-vars",
        "@/private/variables-0.json",
    ]


def test_defaults_come_before_the_inventory_which_wins() -> None:
    play = Play("deploy", "site", HOSTS, defaults={"hakuriver_install_wheel": "/x.whl"})
    assert arguments(play, defaults_file=Path("/p/defaults.yml")) == ["--inventory", "/p/defaults.yml"]


def test_the_inventory_is_read_with_its_vault() -> None:
    assert inventory_arguments(HOSTS) == ["--inventory", "/inventory/hosts.yml", "--list"]
    assert inventory_arguments(HOSTS, Path("/v"))[-2:] == ["--vault-password-file", "/v"]


def test_options_become_a_play() -> None:
    playing = Playing(
        tags=("tls",), extra_vars=("hakuriver_tls=false", '{"x": [1]}', "@more.yml"), ask_become_pass=True
    )
    play = play_of(playing, HOSTS, "deploy", "site", variables={"hakuriver_rotate": "all"})
    assert play.tags == ("tls",)
    assert play.ask == (Secret.BECOME,)
    assert play.variables == (
        {"hakuriver_rotate": "all"},
        {"hakuriver_tls": "false"},
        {"x": [1]},
        Path.cwd() / "more.yml",
    )
    assert play.variable_names == ["hakuriver_rotate", "hakuriver_tls", "x", f"@{Path.cwd() / 'more.yml'}"]


@pytest.mark.parametrize(
    "text",
    [
        "ansible_become_password=x",
        "ansible_ssh_pass=x",
        "my_token=x",
        '{"db_secret": "x"}',
        "no-equals-sign",
        "{not json",
        "1x=2",
    ],
)
def test_what_is_secret_or_malformed_is_no_variable(text: str) -> None:
    with pytest.raises(UsageError):
        parse_variables(text)


def test_a_command_with_a_limit_of_its_own_takes_no_other() -> None:
    with pytest.raises(UsageError, match="by itself"):
        play_of(Playing(limit="a"), HOSTS, "add-node", "add-node", limit="b")


def test_the_vault_password_comes_one_way() -> None:
    with pytest.raises(UsageError, match="exclude"):
        play_of(Playing(ask_vault_pass=True, vault_password_file=Path("v")), HOSTS, "deploy", "site")


def test_the_request_carries_passwords_and_keeps_no_files_of_them() -> None:
    job = Job(
        Path("/ansible"), "playbooks/site.yml", HOSTS, ["--limit", "a b"], Path("/private"), {"BECOME": "s3"}
    )
    first, second = request(job).splitlines()
    assert json.loads(second) == {"eof": True}
    wanted = json.loads(first)["kwargs"]
    assert wanted["cmdline"] == "--limit 'a b'"
    assert wanted["passwords"] == {"BECOME": "s3"}
    assert wanted["suppress_env_files"] is True
    assert wanted["settings"]["suppress_output_file"] is True
    assert (wanted["project_dir"], wanted["playbook"]) == ("/ansible", "playbooks/site.yml")


def test_the_child_ends_with_the_command() -> None:
    worker = ["ansible-runner", "worker", "--private-data-dir", "/private"]
    assert worker_arguments("ansible-runner", Path("/private"), None) == worker
    made = worker_arguments("ansible-runner", Path("/private"), "/usr/bin/setpriv")
    assert made == ["/usr/bin/setpriv", "--pdeathsig", "TERM", *worker]


def test_the_environment_checks_host_keys_and_hides_our_token() -> None:
    own = {"PATH": "/bin", "HAKURIVER_TOKEN": "secret", "HOME": "/home/ada"}
    made = environment(own, Path("/ansible"))
    assert made["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert made["ANSIBLE_CONFIG"] == "/ansible/ansible.cfg"
    assert "HAKURIVER_TOKEN" not in made
    assert made["HOME"] == "/home/ada"
    assert made["PATH"].endswith(":/bin")
    assert (
        environment({"ANSIBLE_HOST_KEY_CHECKING": "False"}, Path("/a"))["ANSIBLE_HOST_KEY_CHECKING"]
        == "False"
    )

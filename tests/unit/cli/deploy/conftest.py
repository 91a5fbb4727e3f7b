"""An inventory in a folder, and commands that play it on the double of Ansible."""

from __future__ import annotations

from pathlib import Path

import pytest

from hakuriver_cli.deploy import commands as cluster_commands
from hakuriver_cli.deploy import standing
from hakuriver_cli.deploy.fake import FakeAnsible

HOSTS = """\
hakuriver:
  children:
    hakuriver_host:
      hosts:
        head:
          ansible_host: 10.0.0.1
    hakuriver_runners:
      hosts:
        node-1:
          ansible_host: 10.0.0.11
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "hosts.yml").write_text(HOSTS)
    return folder


@pytest.fixture
def ansible(monkeypatch: pytest.MonkeyPatch, inventory: Path) -> FakeAnsible:
    """What the commands of this test play on; the inventory is the test's own."""
    fake = FakeAnsible(results={"tls: Make it": {"head": {"changed": True}, "node-1": {}}})
    monkeypatch.setenv("HAKURIVER_INVENTORY", str(inventory))
    monkeypatch.setattr(cluster_commands, "ansible", lambda: fake)
    monkeypatch.setattr(standing, "ansible", lambda: fake)
    return fake

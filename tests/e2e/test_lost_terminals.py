"""Terminals over connections that are lost: what was written and typed comes once, and nobody else gets in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import pytest

from hakuriver.states import TaskState
from support import engine
from support.cluster import Cluster, running
from support.ports import free_port
from support.relay import Relay
from support.terminal import Terminal

pytestmark = pytest.mark.docker

WAIT_SECONDS = 6
LOST = 255
_LOOPBACK = "127.0.0.1"


class Link(NamedTuple):
    """A cluster, and a person's way to its Host."""

    lab: Cluster
    relay: Relay

    def terminal(self, *words: str) -> Terminal:
        url = f"http://{_LOOPBACK}:{self.relay.port}"
        return Terminal({"HAKURIVER_CONFIG": str(self.lab.config), "HAKURIVER__CLIENT__URL": url}, *words)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(
        tmp_path_factory.mktemp("lost"),
        cores=32,
        containers=True,
        sections={"timing": {"terminal_wait": WAIT_SECONDS}},
    )
    with running(cluster):
        yield cluster


@pytest.fixture
def link(lab: Cluster) -> Iterator[Link]:
    relay = Relay(_LOOPBACK, free_port(), (_LOOPBACK, lab.port)).start()
    try:
        yield Link(lab, relay)
    finally:
        relay.stop()


@pytest.fixture
def task(lab: Cluster) -> Iterator[int]:
    task_id = lab.api.submit_one("sleep", "86400", container_name=engine.ENVIRONMENT)
    lab.api.wait_state(task_id, TaskState.RUNNING)
    yield task_id
    lab.api.kill(task_id)
    lab.api.wait_final(task_id)


def inside(lab: Cluster, task_id: int, script: str) -> str:
    done = lab.run("task", "exec", str(task_id), "--", "sh", "-c", script)
    assert done.code == 0, done.stderr
    return done.stdout


_COUNT = "i=0; while [ $i -lt {0} ]; do i=$((i+1)); echo line-$i-; done; echo all-{0}\r"


def numbers(shown: str) -> list[int]:
    """Those of the lines shown, without what the client says between."""
    said = re.sub(r"\r\n\[connect[^]]*\]\r\n", "", shown)
    return [int(found) for found in re.findall(r"line-(\d+)-", said)]


@pytest.mark.parametrize("how", ["reset", "drop"])
def test_what_a_program_writes_comes_once(link: Link, task: int, how: Literal["reset", "drop"]) -> None:
    count = 200_000
    with link.terminal("task", "shell", str(task)) as terminal:
        terminal.until("#")
        terminal.type(_COUNT.format(count))
        shown = terminal.until("line-5000-")
        link.relay.cut(how)
        shown += "line-5000-" + terminal.until("reconnecting", 60)
        link.relay.mend()
        shown += terminal.until(f"all-{count}", 120)
        assert numbers(shown) == list(range(1, count + 1))
        assert "connected again" in shown
        terminal.type("exit 9\r")
        assert terminal.code() == 9

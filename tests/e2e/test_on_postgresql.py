"""A cluster whose Host keeps its state in PostgreSQL: the same commands, and as little is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hakuriver.states import FINAL, TaskState
from support.cluster import Cluster, running

pytestmark = pytest.mark.postgresql

KILLS = 6
TASKS = 60


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path, postgresql_url: str) -> Iterator[Cluster]:
    with running(Cluster(tmp_path, sections={"database": {"url": postgresql_url}})) as cluster:
        yield cluster


def test_the_host_is_killed_again_and_again(cluster: Cluster) -> None:
    """Every acknowledged task ends once, with its exit code; a submission without an answer is sent again."""
    expected: dict[int, int] = {}
    for number in range(TASKS):
        if number % (TASKS // KILLS) == 0:
            cluster.host.kill()
            cluster.start_host()
        code = 3 if number % 3 == 2 else 0
        expected[cluster.api.submit_one("sh", "-c", f"sleep 0.1; exit {code}")] = code
    for task, code in expected.items():
        detail = cluster.api.wait_final(task, within=60)
        assert (detail.exit_code, detail.status) == (
            code,
            TaskState.FAILED if code else TaskState.COMPLETED,
        )
        assert sum(event.state in FINAL for event in detail.history) == 1
    assert not (cluster.state_dir / "hakuriver.db").exists()
    cluster.assert_clean(expected)


def test_people_tokens_and_nodes_are_there_after_a_restart(cluster: Cluster) -> None:
    assert cluster.run("user", "create", "ada").code == 0
    assert cluster.run("node", "cordon", cluster.node.name).code == 0
    cluster.host.stop()
    cluster.start_host()
    assert "ada" in cluster.run("user", "list", "-o", "name").stdout.split()
    (node,) = cluster.run("node", "list", "-o", "json").json()
    assert node["cordoned"]


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody@/none?host=/nonexistent"
    cluster = Cluster(tmp_path, sections={"database": {"url": url}})
    cluster.shared.mkdir()
    with pytest.raises(AssertionError):
        cluster.start_host()
    said = cluster.host.output()
    assert "Traceback" not in said
    assert "cannot use the database" in said
    assert "see that the server runs" in said

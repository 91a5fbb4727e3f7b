"""`hakuriver state backup | restore` as an admin uses them, around a Host that really runs."""

from __future__ import annotations

from pathlib import Path

from hakuriver.states import TaskState
from support.cluster import Cluster, running
from support.daemons import Daemon


def test_a_host_goes_on_from_a_backup(tmp_path: Path) -> None:
    archive = str(tmp_path / "backup.tar.gz")
    with running(Cluster(tmp_path / "cluster")) as cluster:
        gate = tmp_path / "gate"
        before = cluster.api.submit_one("sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; exit 3")
        cluster.api.wait_state(before, TaskState.RUNNING)
        assert cluster.run("state", "backup", archive).code == 0
        cluster.run("state", "backup", archive).assert_refused(5, "there is a file")
        after = cluster.api.submit_one("true")
        cluster.api.wait_final(after)
        cluster.run("state", "restore", archive, "--force").assert_refused(5, "has", "in use")
        cluster.host.stop()
        cluster.run("state", "restore", archive).assert_refused(5, "there is a database already")
        done = cluster.run("state", "restore", archive, "--force")
        assert done.code == 0, done
        assert done.stderr.endswith("restored; start the Host\n")
        cluster.start_host()
        cluster.wait_online()
        assert cluster.api.call("GET", f"/api/status/{after}").status_code == 404
        gate.touch()
        assert cluster.api.wait_final(before).exit_code == 3, "its Runner had it all the while"


def test_a_state_directory_has_one_host(cluster: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "second.toml"
    text = cluster.config.read_text("utf-8").replace(f"host_port = {cluster.port}", "host_port = 0")
    config.write_text(text, "utf-8")
    second = Daemon("hakuriver_host", config, tmp_path / "second.log")
    second.start()
    assert second.wait() == 5
    assert f"a Host has {cluster.state_dir} in use (process {cluster.host.pid})" in second.output()

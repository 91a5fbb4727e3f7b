"""Environments from beginning to end, with a real engine and no registry: made, filled, packed, run, changed, rolled back."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hakuriver.states import TaskState
from hakuriver.store.layout import blob_path, manifest_path
from support import engine
from support.cluster import Cluster, running
from support.commands import Commands, Result
from support.terminal import Terminal
from support.waiting import until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Host and two Runners on one engine."""
    with running(Cluster(tmp_path_factory.mktemp("lab"), runners=2, containers=True)) as cluster:
        try:
            yield cluster
        finally:
            for name in [row["name"] for row in cluster.run("env", "list", "-o", "json").json()]:
                if name != engine.ENVIRONMENT:
                    cluster.run("env", "delete", name, "--versions")
                    _remove_images(name)


def _remove_images(name: str) -> None:
    for image in engine.client().images.list(f"hakuriver/{name}"):
        for tag in image.tags:
            engine.client().images.remove(tag, force=True)


@pytest.fixture
def name(lab: Cluster) -> str:
    return f"t{uuid.uuid4().hex[:10]}"


def ok(result: Result) -> Result:
    assert result.code == 0, f"{result.code}\n{result.stderr}\n{result.stdout}"
    return result


def make(lab: Cluster, name: str) -> None:
    ok(lab.run("env", "create", name, "--from", engine.ENVIRONMENT))


def sh(lab: Cluster, name: str, script: str) -> str:
    return ok(lab.run("env", "exec", name, "--", "sh", "-c", script)).stdout


def pack(lab: Cluster, name: str) -> dict[str, Any]:
    (version,) = ok(lab.run("env", "pack", name, "-o", "json")).json()
    return dict(version)


def output_of(lab: Cluster, environment: str, *argv: str, target: str | None = None) -> str:
    where = ["--target", target] if target else []
    return ok(lab.run("task", "run", "--container", environment, *where, "--", *argv)).stdout


class TestFromBeginningToEnd:
    def test_packed_changed_and_rolled_back_on_two_nodes(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "echo one > /answer; rm /lower-file")
        first = pack(lab, name)
        for node in lab.nodes:
            assert output_of(lab, name, "cat", "/answer", target=node.name) == "one\n"
        sh(lab, name, "echo two > /answer; echo new > /new-file")
        second = pack(lab, name)
        assert second["parent"] == first["version"]
        for node in lab.nodes:
            assert output_of(
                lab, name, "sh", "-c", "cat /answer /new-file; ls /lower-file 2>&1; true", target=node.name
            ) == ("two\nnew\nls: /lower-file: No such file or directory\n")
        ok(lab.run("env", "rollback", name))
        assert output_of(lab, name, "cat", "/answer") == "one\n"
        assert output_of(lab, second["reference"], "cat", "/answer") == "two\n"
        ok(lab.run("env", "tag", second["reference"], "paper"))
        assert output_of(lab, f"{name}:paper", "cat", "/answer") == "two\n"

    def test_a_change_costs_what_has_changed(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "head -c 20000000 /dev/urandom > /big")
        pack(lab, name)
        sh(lab, name, "head -c 100000 /dev/urandom > /small")
        second = pack(lab, name)
        assert 100_000 <= second["own"] < 150_000
        assert second["size"] > 20_000_000

    def test_what_is_packed_is_what_is_in_it(self, lab: Cluster, name: str) -> None:
        """Files, links, owners, modes, times: the container and a task of the version show the same."""
        make(lab, name)
        sh(
            lab,
            name,
            "mkdir -p /d/e; echo a > /d/f; ln /d/f /d/hard; ln -s f /d/sym; mkfifo /d/pipe; chmod 4711 /d/f; "
            "chown 12:34 /d/e; touch -d '2001-02-03 04:05:06' /d/sym /d/f; rm -r /lower; mkdir /lower; : > /lower/x",
        )
        pack(lab, name)
        sh(lab, name, "rm -r /d/e /lower; mkdir /lower /d/g; chmod 1777 /d/g; echo b >> /d/hard")
        pack(lab, name)
        look = "cd /; find d lower bin | sort | xargs stat -c '%N %f %u %g %Y %t %T'; cat d/f d/hard; stat -c %i d/f d/hard | uniq | wc -l"
        inside = sh(lab, name, look)
        assert inside.endswith("a\nb\na\nb\n1\n")
        assert output_of(lab, name, "sh", "-c", look) == inside

    def test_the_container_goes_on_as_it_was(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "(while :; do echo x >> /log; sleep 0.05; done) >/dev/null 2>&1 &")
        pack(lab, name)
        before = int(sh(lab, name, "wc -l < /log"))
        until(lambda: int(sh(lab, name, "wc -l < /log")) > before, "what ran goes on")
        sh(lab, name, "pkill -f 'echo x' || kill %1; true")


class TestWhatTasksGet:
    def test_a_version_is_pinned_at_submission(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "echo one > /answer")
        first = pack(lab, name)
        full = [
            lab.api.submit_one("sleep", "600", required_cores=4, targets=[node.name]) for node in lab.nodes
        ]
        for task in full:
            lab.api.wait_state(task, TaskState.RUNNING)
        batch = lab.api.submit("cat", "/answer", container_name=name, count=3).task_ids
        sh(lab, name, "echo two > /answer")
        pack(lab, name)
        lab.run("env", "delete", first["reference"]).assert_refused(5, first["reference"])
        for task in full:
            lab.api.kill(task)
        for task in batch:
            assert lab.api.wait_final(task).environment_version == str(first["version"])
            assert lab.api.log(task) == b"one\n"

    def test_nodes_load_ahead_of_time_and_the_list_says_who_has_what(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "head -c 3000000 /dev/urandom > /data")
        version = pack(lab, name)
        done = ok(lab.run("env", "prefetch", name, "--node", lab.node.name, "-o", "json")).json()
        assert [(each["node"], each["state"]) for each in done] == [(lab.node.name, "ready")]

        def nodes() -> list[str]:
            (row,) = [row for row in lab.run("env", "list", "-o", "json").json() if row["name"] == name]
            return list(row["versions"][0]["nodes"])

        # Both Runners use one engine, so the other one finds it too.
        until(lambda: lab.node.name in nodes(), "the list tells which nodes have it")
        wide = ok(lab.run("env", "list", "-o", "wide")).stdout
        assert lab.node.name in next(line for line in wide.splitlines() if line.startswith(name))
        assert str(version["version"]) in wide

    def test_twenty_tasks_of_four_environments_at_once_load_each_once(self, lab: Cluster, name: str) -> None:
        names = [f"{name}-{number}" for number in range(4)]
        images = {}
        for each in names:
            make(lab, each)
            sh(lab, each, f"head -c 3000000 /dev/urandom > /data; echo {each} > /name")
            images[each] = f"image=hakuriver/{each}:{pack(lab, each)['version']} "
        present, *missing = names
        ok(lab.run("env", "prefetch", present, "--node", lab.node.name))
        before = len(lab.node.daemon.output())
        tasks = {
            lab.api.submit_one("cat", "/name", container_name=each, targets=[lab.node.name]): each
            for each in names * 5
        }
        details = {task: lab.api.wait_final(task, within=120) for task in tasks}
        assert {task: lab.api.log(task).decode().strip() for task in tasks} == tasks
        loads = [
            line
            for line in lab.node.daemon.output()[before:].splitlines()
            if "loading an environment" in line
        ]
        assert sorted(sum(images[each] in line for line in loads) for each in missing) == [1, 1, 1], loads
        assert not [line for line in loads if images[present] in line]
        assert all("layers=1" in line for line in loads), loads
        # Nothing of the one that is there waited for the others: none of its tasks told of a load.
        assert not [
            event
            for task, each in tasks.items()
            if each == present
            for event in details[task].history
            if "loading" in (event.cause or "")
        ]

    def test_unknown_nodes_and_versions_are_refused(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        pack(lab, name)
        lab.run("env", "prefetch", name, "--node", "nowhere").assert_refused(3, "nowhere")
        lab.run("env", "prefetch", f"{name}@5").assert_refused(3, "5")
        lab.run("task", "run", "--container", f"{name}@5", "--", "true").assert_refused(3, "5")
        lab.run("task", "run", "--container", f"{name}:x", "--", "true").assert_refused(3, "x")

    @pytest.mark.parametrize("damage", ["missing", "cut off", "zeros"])
    def test_a_damaged_layer_fails_the_task_with_the_reason(
        self, lab: Cluster, name: str, damage: str
    ) -> None:
        make(lab, name)
        sh(lab, name, "head -c 1000000 /dev/urandom > /data")
        version = pack(lab, name)
        root = lab.shared / "hakuriver-containers"
        manifest = json.loads(manifest_path(root, name, version["version"]).read_text())
        path = blob_path(root, manifest["layers"][-1]["diff_id"])
        if damage == "missing":
            path.unlink()
        elif damage == "cut off":
            os.truncate(path, path.stat().st_size // 2)
        else:
            path.write_bytes(bytes(path.stat().st_size))
        detail = lab.api.wait_final(lab.api.submit_one("true", container_name=name))
        assert detail.status is TaskState.FAILED
        assert "layer" in (detail.error_message or "")

    def test_a_damaged_manifest_hides_nothing_else_and_can_be_deleted(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        damaged, kept = pack(lab, name), pack(lab, name)
        path = manifest_path(lab.shared / "hakuriver-containers", name, damaged["version"])
        path.write_text("{")
        lab.run("task", "run", "--container", damaged["reference"], "--", "true").assert_refused(1, "damaged")
        assert output_of(lab, name, "echo", "fine") == "fine\n"
        ok(lab.run("env", "delete", damaged["reference"]))
        left = ok(lab.run("env", "versions", name, "-o", "name")).stdout
        assert left == f"{kept['reference']}\n"
        lab.run("env", "delete", damaged["reference"]).assert_refused(3, str(damaged["version"]))

    def test_a_wrong_image_under_the_name_is_never_run(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "echo right > /answer")
        version = pack(lab, name)
        engine.client().images.get(f"hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}").tag(
            f"hakuriver/{name}", str(version["version"])
        )
        assert output_of(lab, name, "cat", "/answer") == "right\n"


class TestSources:
    def test_a_folder_and_a_tar_of_a_root_file_system(self, lab: Cluster, name: str, tmp_path: Path) -> None:
        root = tmp_path / "root"
        root.mkdir()
        subprocess.run(["tar", "-xf", str(_root_tar(tmp_path)), "-C", str(root)], check=True)
        (root / "from-folder").write_text("folder\n")
        ok(lab.run("env", "create", name, "--rootfs", str(root)))
        assert sh(lab, name, "cat /from-folder") == "folder\n"
        ok(lab.run("env", "create", f"{name}-2", "--rootfs", str(_root_tar(tmp_path))))
        assert sh(lab, f"{name}-2", "cat /etc/passwd").startswith("root:")

    def test_archives_of_docker_and_oci(self, lab: Cluster, name: str, tmp_path: Path) -> None:
        archive = tmp_path / "image.tar"
        with archive.open("wb") as file:
            for piece in (
                engine.client().images.get(f"hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}").save()
            ):
                file.write(piece)
        ok(lab.run("env", "create", name, "--archive", str(archive)))
        assert sh(lab, name, "echo docker") == "docker\n"
        oci = _oci_of(archive, tmp_path)
        ok(lab.run("env", "create", f"{name}-2", "--archive", str(oci)))
        assert sh(lab, f"{name}-2", "echo oci") == "oci\n"

    def test_a_dockerfile(self, lab: Cluster, name: str, tmp_path: Path) -> None:
        context = tmp_path / "context"
        context.mkdir()
        (context / "sub").mkdir()
        for file in ("hello", "secret", "sub/hello.tmp", "sub/kept.tmp"):
            (context / file).write_text("built\n")
        (context / ".dockerignore").write_text("# not sent\nsecret\n**/*.tmp\n!sub/kept.tmp\n")
        (context / "Dockerfile").write_text(
            f"FROM hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}\nCOPY . /built\nENV COLOUR=blue\n"
        )
        ok(lab.run("env", "create", name, "--dockerfile", str(context)))
        pack(lab, name)
        shown = output_of(lab, name, "sh", "-c", "cd /built; find . -type f | sort; cat hello; echo $COLOUR")
        assert [*shown.split()] == [
            "./.dockerignore",
            "./Dockerfile",
            "./hello",
            "./sub/kept.tmp",
            "built",
            "blue",
        ]
        (context / "Dockerfile").write_text("FROM scratch\nNONSENSE\n")
        lab.run("env", "create", f"{name}-2", "--dockerfile", str(context)).assert_refused(2, "nonsense")

    @pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap takes root")
    def test_a_distribution_from_its_packages(self, lab: Cluster, name: str) -> None:
        lab.run("env", "create", name, "--debootstrap", "no-such-suite").assert_refused(1, "no-such-suite")
        ok(lab.run("env", "create", name, "--debootstrap", "bookworm", within=600))
        pack(lab, name)
        assert output_of(lab, name, "cat", "/etc/debian_version").startswith("12.")

    def test_an_image_that_cannot_be_had(self, lab: Cluster, name: str) -> None:
        lab.run("env", "create", name, "--image", "127.0.0.1:9/none:1").assert_refused(3, "cannot be pulled")
        assert name not in ok(lab.run("env", "list", "-o", "name")).stdout

    def test_exported_and_imported_it_is_the_same(self, lab: Cluster, name: str, tmp_path: Path) -> None:
        make(lab, name)
        sh(lab, name, "echo out > /answer")
        version = pack(lab, name)
        target = tmp_path / f"{name}-{version['version']}.tar"
        ok(lab.run("env", "export", name, "--file", str(target)))
        assert [*tmp_path.iterdir()] == [target]
        (imported,) = ok(lab.run("env", "import", str(target), f"{name}-2", "-o", "json")).json()
        assert imported["image"] == version["image"]
        assert imported["own"] == 0
        assert output_of(lab, f"{name}-2", "cat", "/answer") == "out\n"

    def test_cloned_it_is_another(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "echo unpacked > /answer")
        ok(lab.run("env", "clone", name, f"{name}-2"))
        sh(lab, f"{name}-2", "echo changed > /answer")
        assert sh(lab, name, "cat /answer") == "unpacked\n"

    @pytest.mark.parametrize("kind", ["--archive", "--rootfs"])
    @pytest.mark.parametrize("content", ["text", "outside", "cut off"])
    def test_what_is_no_archive_is_refused(
        self, lab: Cluster, name: str, tmp_path: Path, kind: str, content: str
    ) -> None:
        path = tmp_path / "bad.tar"
        if content == "text":
            path.write_text("a letter\n" * 1000)
        elif content == "cut off":
            path.write_bytes(_root_tar(tmp_path).read_bytes()[:500_000])
        else:
            with tarfile.open(path, "w") as tar:
                info = tarfile.TarInfo("../../etc/cron.d/evil")
                tar.addfile(info)
        lab.run("env", "create", name, kind, str(path)).assert_refused(2)
        assert name not in ok(lab.run("env", "list", "-o", "name")).stdout


class TestWorkingInIt:
    def test_exec_passes_output_errors_input_and_code(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        done = lab.run(
            "env", "exec", "-w", "/tmp", "-e", "A=b c", name, "--", "sh", "-c", 'pwd; echo "$A" >&2; exit 7'
        )
        assert (done.code, done.stdout, done.stderr) == (7, "/tmp\n", "b c\n")
        data = os.urandom(1_000_000)
        assert _piped(lab, data, "env", "exec", "-i", name, "--", "sha256sum").startswith(
            hashlib.sha256(data).hexdigest()
        )

    def test_a_shell_is_a_real_terminal(self, lab: Cluster, name: str) -> None:
        """Also where COLUMNS and LINES are set, which a shell does not keep up to date for its children."""
        make(lab, name)
        environment = {"HAKURIVER_CONFIG": str(lab.config), "COLUMNS": "80", "LINES": "24"}
        with Terminal(environment, "env", "shell", name, rows=31, columns=97) as terminal:
            terminal.until("#")
            # In a process of its own: between two jobs an interactive shell has no job to interrupt.
            terminal.type("sh -c 'while :; do stty size; sleep 0.1; done'\r")
            terminal.until("31 97")
            terminal.resize(40, 120)
            terminal.until("40 120")
            terminal.type("\x03")
            terminal.until("#")
            terminal.type("sh -c 'echo be''gun; sleep 600'\r")
            terminal.until("begun")
            terminal.type("\x03")
            terminal.type("echo interr''upted\r")
            terminal.until("interrupted")
            terminal.type("exit 9\r")
            assert terminal.code() == 9

    def test_a_terminal_that_vanishes_leaves_nothing_running(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        with Terminal({"HAKURIVER_CONFIG": str(lab.config)}, "env", "shell", name) as terminal:
            terminal.until("#")
            terminal.type("sleep 4321\r")
            until(lambda: "4321" in sh(lab, name, "ps"), "it runs")
        until(lambda: "sleep 4321" not in sh(lab, name, "ps | grep -v grep"), "it has been ended")

    def test_files_and_folders_are_copied_both_ways(self, lab: Cluster, name: str, tmp_path: Path) -> None:
        make(lab, name)
        tree = tmp_path / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "file").write_bytes(os.urandom(100_000))
        ok(lab.run("env", "cp", str(tree), f"{name}:/opt-tree"))
        ok(lab.run("env", "cp", str(tree / "sub" / "file"), f"{name}:/tmp"))
        ok(lab.run("env", "cp", f"{name}:/opt-tree", str(tmp_path / "back")))
        assert (tmp_path / "back/sub/file").read_bytes() == (tree / "sub/file").read_bytes()
        ok(lab.run("env", "cp", f"{name}:/tmp/file", str(tmp_path)))
        assert (tmp_path / "file").read_bytes() == (tree / "sub/file").read_bytes()
        lab.run("env", "cp", str(tree), f"{name}:/none/there/").assert_refused(3, "/none/there")
        lab.run("env", "cp", f"{name}:/none", str(tmp_path)).assert_refused(3, "/none")
        lab.run("env", "cp", str(tree), str(tmp_path)).assert_refused(2)

    def test_a_stopped_one_says_so_and_starts_again(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "echo kept > /file")
        ok(lab.run("env", "stop", name))
        lab.run("env", "exec", name, "--", "true").assert_refused(5, "exited")
        pack(lab, name)
        ok(lab.run("env", "start", name))
        assert sh(lab, name, "cat /file") == "kept\n"


class TestWhoMayAndWhen:
    def test_only_its_owner_and_admins_change_it(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        pack(lab, name)
        other = _user(lab, f"u{name}")
        for command in (["pack", name], ["exec", name, "--", "true"], ["delete", name], ["rollback", name]):
            result = other("env", *command)
            assert result.code in {4, 5}, result.stderr
            assert "belongs to admin" in result.stderr
        ok(other("env", "clone", name, f"{name}-2"))
        ok(other("env", "pack", f"{name}-2"))
        ok(lab.run("env", "delete", f"{name}-2", "--versions"))
        viewer = _user(lab, f"v{name}", "viewer")
        ok(viewer("env", "list"))
        viewer("env", "create", f"{name}-3", "--from", name).assert_refused(4)

    def test_two_packings_at_once(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "head -c 60000000 /dev/urandom > /big")
        started = [lab.run.start("env", "pack", name) for _ in range(2)]
        ends = [process.communicate(timeout=120) for process in started]
        codes = sorted(process.returncode for process in started)
        if codes == [0, 5]:
            assert any(b"being packed" in errors for _, errors in ends)
        else:
            assert codes == [0, 0], "one after the other"
        assert len(ok(lab.run("env", "versions", name, "-o", "json")).json()) == codes.count(0)

    def test_what_is_not_there_or_not_a_name(self, lab: Cluster, name: str) -> None:
        for command in (
            ["pack", name],
            ["shell", name],
            ["versions", name],
            ["rollback", name],
            ["delete", name],
        ):
            if command[0] != "shell":
                lab.run("env", *command).assert_refused(3, name)
        for bad in ("Upper", "a/b", "..", "a__b", "-x"):
            result = lab.run("env", "create", "--from", engine.ENVIRONMENT, "--", bad)
            assert result.code == 2, (bad, result.stderr)
            assert "Traceback" not in result.stderr
        make(lab, name)
        lab.run("env", "create", name, "--from", engine.ENVIRONMENT).assert_refused(5, name)

    def test_garbage_is_what_nobody_names(self, lab: Cluster, name: str) -> None:
        make(lab, name)
        sh(lab, name, "head -c 300000 /dev/urandom > /x")
        gone = pack(lab, name)
        sh(lab, name, "head -c 300000 /dev/urandom > /x")
        kept = pack(lab, name)
        ok(lab.run("env", "delete", gone["reference"]))
        would = ok(lab.run("env", "gc", "--dry-run", "-o", "json")).json()
        freed = ok(lab.run("env", "gc", "-o", "json")).json()
        assert would["freed"] == freed["freed"] >= 0
        assert output_of(lab, kept["reference"], "sh", "-c", "wc -c < /x") == "300000\n"


class TestTheReferencesNames:
    def test_the_commands(self, lab: Cluster, name: str) -> None:
        image = f"hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}"
        program = "hakuriver.docker"
        ok(lab.run("create-container", image, name, program=program))
        assert name in ok(lab.run("list-containers", program=program)).stdout
        ok(lab.run("stop-container", name, program=program))
        ok(lab.run("start-container", name, program=program))
        ok(lab.run("create-tar", name, program=program))
        assert name in ok(lab.run("list-tars", program=program)).stdout
        ok(lab.run("delete-container", name, program=program))
        assert name not in ok(lab.run("list-containers", program=program)).stdout

    def test_only_containers_that_hakuriver_made_are_reachable(self, lab: Cluster, name: str) -> None:
        stranger = engine.client().containers.create(
            f"hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}", "sleep 600", name=name
        )
        try:
            assert name not in ok(lab.run("list-containers", program="hakuriver.docker")).stdout
            lab.run("delete-container", name, program="hakuriver.docker").assert_refused(3)
            assert lab.api.call("POST", f"/api/docker/host/start/{name}").status_code == 404
        finally:
            stranger.remove(force=True)

    def test_the_endpoints(self, lab: Cluster, name: str) -> None:
        body = {"image_name": f"hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}", "container_name": name}
        assert lab.api.call("POST", "/api/docker/host/create", json=body).status_code == 201
        packed = lab.api.json("POST", f"/api/docker/create_tar/{name}")
        assert (lab.shared / packed["tarball_path"]).is_file()
        listed = lab.api.json("GET", "/api/docker/list")[name]
        assert listed["latest_tarball"] == listed["all_versions"][0]["tarball"]
        found = lab.api.json("GET", "/api/docker/host/containers")
        assert [each["status"] for each in found if each["name"] == name] == ["running"]
        assert lab.api.call("POST", f"/api/docker/host/stop/{name}").is_success
        assert lab.api.call("POST", f"/api/docker/host/delete/{name}").is_success


def _piped(lab: Cluster, data: bytes, *arguments: str) -> str:
    process = lab.run.start(*arguments, stdin=subprocess.PIPE)
    output, errors = process.communicate(data, timeout=60)
    assert process.returncode == 0, errors
    return output.decode()


def _user(lab: Cluster, name: str, role: str = "user") -> Commands:
    lab.api.json("POST", "/api/users", json={"name": name, "role": role})
    token = lab.api.json("POST", "/api/tokens", json={"user": name})["token"]
    return Commands({"HAKURIVER_CONFIG": str(lab.config), "HAKURIVER_TOKEN": token})


def _root_tar(folder: Path) -> Path:
    path = folder / "root.tar"
    path.write_bytes(engine.root_file_system())
    return path


def _oci_of(archive: Path, folder: Path) -> Path:
    """The same image as an OCI archive (image-layout 1.0)."""
    blobs = folder / "oci" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    with tarfile.open(archive) as tar:

        def member(path: str) -> bytes:
            file = tar.extractfile(path)
            assert file is not None
            return file.read()

        (described,) = json.loads(member("manifest.json"))
        config = blob(member(described["Config"]))
        layers = [blob(member(path)) for path in described["Layers"]]
    manifest = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode())
    (folder / "oci" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    path = folder / "oci.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder / "oci", ".")
    return path

"""The pure parts: outcomes, command lines, requests, paths, lists of the kernel, frames of the engine."""

from __future__ import annotations

import os
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hakuriver.config import Settings
from hakuriver.cores import parse_list, usable_cores
from hakuriver.models.runner import JoinResponse
from hakuriver.models.submission import RESERVED_VARIABLES
from hakuriver.states import TaskState
from hakuriver_agent.attempts import outcome, time_left
from hakuriver_agent.devices import cpu, numa
from hakuriver_agent.engines.commands import numactl, systemd_scope, task_variables
from hakuriver_agent.engines.docker_output import Frames
from hakuriver_agent.engines.docker_request import Bind, Place, create_request, start_failure
from hakuriver_agent.engines.port import Ended
from hakuriver_agent.folders import Folders, ForbiddenPathError
from hakuriver_agent.tokens import Tokens
from unit.agent.agent_doubles import spec

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLACE = Place("n1", "abc", 1000, "bridge", {1: "4-7"})


@pytest.mark.parametrize(
    ("code", "oom", "killed", "limit", "status", "message"),
    [
        (0, False, False, None, TaskState.COMPLETED, None),
        (1, False, False, None, TaskState.FAILED, None),
        (137, False, False, None, TaskState.FAILED, None),
        (137, True, False, None, TaskState.KILLED_OOM, "it used more memory than its limit"),
        (
            0,
            True,
            False,
            None,
            TaskState.COMPLETED,
            "the kernel killed one of its processes for want of memory",
        ),
        (0, False, True, None, TaskState.KILLED, None),
        (137, True, True, None, TaskState.KILLED, None),
        (143, False, False, 5, TaskState.FAILED, "ran over its time limit of 5 s"),
        (0, False, False, 5, TaskState.FAILED, "ran over its time limit of 5 s"),
        (143, False, True, 5, TaskState.KILLED, None),
        (None, False, False, None, TaskState.FAILED, None),
    ],
)
def test_outcomes(
    code: int | None, oom: bool, killed: bool, limit: int | None, status: TaskState, message: str | None
) -> None:
    changes = outcome(Ended(code, NOW, oom), kill_requested=killed, time_limit=limit)
    assert (changes["status"], changes["exit_code"], changes["message"]) == (status, code, message)


def test_the_time_that_is_left() -> None:
    assert time_left(NOW, 10, NOW + timedelta(seconds=4)) == 6
    assert time_left(NOW, 10, NOW + timedelta(seconds=11)) == -1


def test_a_scope_holds_limits_and_passes_argv_unchanged() -> None:
    assert systemd_scope("u", ["a b", "$x"], 2, 1000, (5, 6)) == [
        *["systemd-run", "--scope", "--quiet", "--collect", "--slice=hakuriver.slice", "--unit=u"],
        "--property=KillMode=control-group",
        *["--property=CPUQuota=200%", "--property=MemoryMax=1000", "--property=MemorySwapMax=0"],
        *["--", "setpriv", "--reuid=5", "--regid=6", "--groups=6", "--", "a b", "$x"],
    ]


def test_a_scope_without_limits_sets_none() -> None:
    assert [
        word for word in systemd_scope("u", ["x"], 0, None, None) if "CPU" in word or "Memory" in word
    ] == []


def test_numactl() -> None:
    assert numactl("/bin/numactl", 0, [0, 1, 2, 5], ["x"])[1:3] == ["--physcpubind=0-2,5", "--membind=0"]
    assert numactl("/bin/numactl", 1, [], ["x", "-y"]) == [
        "/bin/numactl",
        "--cpunodebind=1",
        "--membind=1",
        "--",
        "x",
        "-y",
    ]


def test_variables_of_hakuriver_go_before_the_tasks_own() -> None:
    given = spec(env_vars={"A": "1", "HAKURIVER_NODE": "forged"}, numa_node=0, index=3, gpus=["GPU-a"])
    variables = task_variables(given, "n1", "/t", "/s")
    assert variables["A"] == "1"
    assert variables["HAKURIVER_NODE"] == "n1"
    assert variables["HAKURIVER_TARGET_NUMA_NODE"] == "0"
    assert variables["HAKURIVER_TASK_INDEX"] == "3"
    assert variables["HAKURIVER_GPUS"] == "GPU-a"
    of_containers = {"NVIDIA_VISIBLE_DEVICES"}
    the_hosts = {
        "HAKURIVER_SWEEP_INDEX",
        "HAKURIVER_SWEEP_COUNT",
    }  # Which come with the variables of the task.
    ours = RESERVED_VARIABLES - of_containers - the_hosts
    assert variables.keys() - {"A"} == ours, "what submissions cannot set"


def test_the_request_for_a_container() -> None:
    given = spec(
        "prog", "a", "b c", cores=2, memory_bytes=1 << 30, shm_size_bytes=99, user="5:6", network="host",
        privileged=True, numa_node=1, working_dir="/w", env_vars={"SECRET": "s"},
    )  # fmt: skip
    binds = [Bind(Path("/a"), "/b", read_only=True)]
    request = create_request(given, given.model_copy(update={"env_vars": {}}), "img", binds, PLACE)
    host = request["HostConfig"]
    assert (request["Entrypoint"], request["Cmd"]) == (["prog"], ["a", "b c"])
    assert (request["User"], request["WorkingDir"], request["Image"]) == ("5:6", "/w", "img")
    assert "SECRET=s" in request["Env"]
    assert "SECRET" not in str(request["Labels"])
    assert request["Labels"]["hakuriver.task"] == str(given.task_id)
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (2 * 10**9, 1 << 30, 1 << 30)
    assert (host["ShmSize"], host["NetworkMode"], host["Privileged"]) == (99, "host", True)
    assert host["RestartPolicy"] == {"Name": "no"}
    assert "AutoRemove" not in host
    assert host["LogConfig"]["Config"] == {"max-size": "2000", "max-file": "2", "compress": "false"}
    assert host["Mounts"] == [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}]
    assert (host["CpusetCpus"], host["CpusetMems"]) == ("4-7", "1")


def test_a_request_without_limits_sets_none() -> None:
    host = create_request(spec(), spec(), "img", [], PLACE)["HostConfig"]
    assert not {"NanoCpus", "Memory", "ShmSize", "CpusetCpus"} & set(host)
    assert host["NetworkMode"] == "bridge"


_RUNC = "OCI runtime create failed: container_linux.go:380: starting container process caused: "


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_RUNC + 'exec: "prog": executable file not found in $PATH: unknown', 127),
        (_RUNC + 'exec: "/x/prog": stat /x/prog: no such file or directory: unknown', 127),
        (_RUNC + 'exec: "/etc/passwd": permission denied: unknown', 126),
        (_RUNC + "exec /bin/prog: exec format error", 126),
        (_RUNC + "apply caps: operation not permitted: unknown", None),
        ("network nowhere not found", None),
    ],
)
def test_why_a_container_does_not_start(text: str, code: int | None) -> None:
    failure = start_failure("prog", text + "\n")
    assert failure.exit_code == code
    assert "\n" not in failure.message


def test_frames_are_cut_wherever_they_are_split() -> None:
    pieces = [(1, b"out"), (2, b"error"), (1, b""), (1, b"x" * 300)]
    stream = b"".join(struct.pack(">BxxxL", number, len(data)) + data for number, data in pieces)
    for size in (1, 3, 7, 8, 9, 1000):
        frames, seen = Frames(), {1: b"", 2: b""}
        for start in range(0, len(stream), size):
            for number, data in frames.feed(stream[start : start + size]):
                seen[number] += data
        assert seen == {1: b"out" + b"x" * 300, 2: b"error"}


@pytest.fixture(name="folders")
def _folders(tmp_path: Path) -> Folders:
    settings = Settings.model_validate(
        {
            "paths": {
                "shared_dir": tmp_path / "share",
                "state_dir": tmp_path / "data" / "state",
                "local_temp_dir": tmp_path / "temp",
            },
            "runner": {"name": "n1", "allowed_mount_roots": [tmp_path / "data"]},
        }
    )
    folders = Folders.of(settings)
    for path in (
        "share/shared_data/mine",
        "share/task_outputs",
        "share/hakuriver-containers",
        "data/sets",
        "data/state",
        "other",
    ):
        (tmp_path / path).mkdir(parents=True)
    folders.prepare()
    return folders


@pytest.mark.parametrize("allowed", ["share/shared_data", "share/shared_data/mine", "data/sets"])
def test_mounts_under_the_roots_are_allowed(folders: Folders, tmp_path: Path, allowed: str) -> None:
    assert folders.mount_source(str(tmp_path / allowed)) == tmp_path / allowed


@pytest.mark.parametrize(
    "denied",
    [
        "other",
        "data",
        "data/state",
        "data/state/runner-n1",
        "share",
        "share/task_outputs",
        "share/hakuriver-containers",
        "data/missing",
        "",
    ],
)
def test_other_mounts_are_not(folders: Folders, tmp_path: Path, denied: str) -> None:
    with pytest.raises(ForbiddenPathError):
        folders.mount_source(str(tmp_path / denied))


def test_a_link_leads_nowhere_else(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "share/shared_data/link").symlink_to(tmp_path / "other")
    with pytest.raises(ForbiddenPathError, match="allowed_mount_roots"):
        folders.mount_source(str(tmp_path / "share/shared_data/link"))
    (tmp_path / "share/shared_data/state").symlink_to(tmp_path / "data/state")
    with pytest.raises(ForbiddenPathError, match="own files"):
        folders.mount_source(str(tmp_path / "share/shared_data/state"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "task_outputs/../../x", "", "a\0b"])
def test_logs_stay_inside_the_share(folders: Folders, path: str) -> None:
    with pytest.raises(ForbiddenPathError):
        folders.log_file(path)


def test_the_state_folder_is_private(folders: Folders) -> None:
    assert folders.state.stat().st_mode & 0o777 == 0o700


def test_lists_of_the_kernel() -> None:
    assert parse_list("0-2,5\n") == [0, 1, 2, 5]
    assert parse_list("\n") == []


def test_cores_that_share_one_are_next_to_each_other(tmp_path: Path) -> None:
    for core, (package, own) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 0)]):
        folder = tmp_path / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n")
        (folder / "core_id").write_text(f"{own}\n")
    assert numa.by_closeness(range(6), tmp_path) == [0, 4, 2, 1, 5, 3]
    assert numa.by_closeness([3, 1], tmp_path / "nothing") == [1, 3]


def test_numa_nodes_from_sysfs(tmp_path: Path) -> None:
    for number, cores in (("0", "0-1"), ("10", "2-3")):
        folder = tmp_path / f"node{number}"
        folder.mkdir()
        (folder / "cpulist").write_text(cores + "\n")
        (folder / "meminfo").write_text(f"Node {number} MemTotal:       2048 kB\n")
    (tmp_path / "node0/distance").write_text("10 21\n")
    (tmp_path / "node10/distance").write_text("21\n")
    for core in (0, 1):
        (tmp_path / f"cpu{core}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{core}/topology/physical_package_id").write_text("3\n")
    found = numa.topology(tmp_path, tmp_path)
    assert found is not None
    assert list(found) == ["0", "10"]
    assert (found["10"].cores, found["10"].memory_bytes) == ([2, 3], 2048 * 1024)
    assert found["0"].distances == {"0": 10, "10": 21}
    assert found["10"].distances == {}, "what the machine says makes no sense"
    assert [numa_node.packages for numa_node in found.values()] == [[3], []]
    assert numa.core_lists(tmp_path) == {0: "0-1", 10: "2-3"}
    assert numa.topology(tmp_path / "missing") is None


def test_cores_and_memory_are_bounded_by_control_groups(tmp_path: Path) -> None:
    own = tmp_path / "self"
    own.write_text("0::/outer/inner\n")
    for name, cpus, memory in (("outer", "max 100000", "4096"), ("outer/inner", "100000 100000", "max")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpu.max").write_text(cpus)
        (tmp_path / name / "memory.max").write_text(memory)
    assert usable_cores(tmp_path, own) == 1
    assert cpu.usable_memory(tmp_path, own) == 4096


def test_without_control_groups_there_is_the_whole_machine(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "missing") == len(os.sched_getaffinity(0))
    assert cpu.usable_memory(tmp_path, tmp_path / "missing") > 2**20


def test_version_one_limits(tmp_path: Path) -> None:
    own = tmp_path / "self"
    own.write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
    for controller in ("cpu,cpuacct", "memory"):
        (tmp_path / controller / "x").mkdir(parents=True)
    (tmp_path / "cpu,cpuacct/x/cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "cpu,cpuacct/x/cpu.cfs_period_us").write_text("100000")
    (tmp_path / "memory/x/memory.limit_in_bytes").write_text("8192")
    assert usable_cores(tmp_path, own) == 1
    assert cpu.usable_memory(tmp_path, own) == 8192


def test_tokens_are_kept_and_compared(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    assert not tokens.joined
    assert not tokens.accepts("")
    tokens.keep(JoinResponse(node_token="node", control_token="control"))
    again = Tokens(tmp_path)
    assert again.joined
    assert again.node == "node"
    assert again.accepts("control")
    assert not again.accepts("node")
    assert not again.accepts("")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    again.drop()
    assert not Tokens(tmp_path).joined

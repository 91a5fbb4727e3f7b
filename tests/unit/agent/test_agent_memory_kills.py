"""What the Runner makes of a container that the engine does not call out of memory."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from hakuriver_agent.engines.memory_kills import (
    engine_missed,
    kernel_killed,
    kernel_kills,
    killed_groups,
    names,
)

AT_ONCE, LONG = timedelta(milliseconds=80), timedelta(hours=1)
OURS, OTHER = "75cbab5d", "f0d1fcbc"

LOG = """\
6,801,298,-;docker0: port 32(veth) entered blocking state
4,802,299,-;tail invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0
6,803,300,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg=/docker/x,\
task_memcg=/docker/x,task=tail,pid=16898,uid=0
3,804,301,-;Memory cgroup out of memory: Killed process 16898 (tail) total-vm:34536kB, anon-rss:32384kB, UID:0
3,805,302,-;Memory cgroup out of memory: Killed process 16901 (sort) total-vm:34536kB, anon-rss:32384kB, UID:0
6,806,303,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
task_memcg=/system.slice/docker-y.scope,task=a,pid=16,uid=1000
3,807,304,-;Out of memory: Killed process 16 (a) total-vm:34536kB, anon-rss:32384kB, file-rss:48kB, UID:1000
"""


def never() -> bool:
    raise AssertionError


@pytest.mark.parametrize("exit_code", [0, 1, 137])
@pytest.mark.parametrize("ours", [True, False])
def test_the_engine_is_not_asked_where_the_kernels_log_says_whose_it_was(exit_code: int, ours: bool) -> None:
    assert engine_missed(exit_code, AT_ONCE, ours, never) is ours
    assert engine_missed(exit_code, LONG, ours, never) is ours


def test_the_engine_is_not_asked_while_the_kernel_killed_nobody(tmp_path: Path) -> None:
    vmstat, log = tmp_path / "vmstat", tmp_path / "kmsg"
    vmstat.write_text("oom_kill 7\n")
    log.write_text(LOG)
    assert not engine_missed(137, AT_ONCE, kernel_killed("x", 7, vmstat, log), never)
    assert not engine_missed(137, AT_ONCE, kernel_killed("x", None, tmp_path / "none", log), never)


def test_what_the_kernel_has_killed_since_is_looked_up_in_its_log(tmp_path: Path) -> None:
    vmstat, log = tmp_path / "vmstat", tmp_path / "kmsg"
    vmstat.write_text("oom_kill 7\n")
    log.write_text(LOG)
    assert kernel_killed("y", 6, vmstat, log) is True
    assert kernel_killed("x", 6, vmstat, log) is False
    assert kernel_killed("x", 5, vmstat, log) is None, "it does not name the one before"
    assert kernel_killed("y", 6, vmstat, tmp_path / "none") is None


@pytest.mark.parametrize("exit_code", [0, 1, 137])
def test_a_late_notice_of_the_engine_counts(exit_code: int) -> None:
    assert engine_missed(exit_code, LONG, None, lambda: True)


@pytest.mark.parametrize(
    ("exit_code", "lived", "missed"),
    [(137, AT_ONCE, True), (137, LONG, False), (1, AT_ONCE, False), (0, AT_ONCE, False)],
)
def test_without_log_and_notice_it_is_one_that_was_killed_before_the_engine_watched(
    exit_code: int, lived: timedelta, missed: bool
) -> None:
    assert engine_missed(exit_code, lived, None, lambda: False) is missed


@pytest.mark.parametrize(
    ("groups", "kills", "said"),
    [
        ([f"/docker/{OURS}"], 1, True),
        ([f"/system.slice/docker-{OURS}.scope", None, f"/docker/{OTHER}"], 3, True),
        ([f"/docker/{OTHER}", f"/docker/{OTHER}"], 2, False),
        # An old one of the same container is none of this run of it.
        ([f"/docker/{OURS}", f"/docker/{OTHER}"], 1, False),
        # The kernel left one out, or its log has lost some, or may not be read.
        ([None, f"/docker/{OTHER}"], 2, None),
        ([f"/docker/{OTHER}"], 2, None),
        ([], 1, None),
    ],
)
def test_what_the_log_says_of_the_kills_since_a_container_started(
    groups: list[str | None], kills: int, said: bool | None
) -> None:
    assert names(groups, OURS, kills) is said


def test_the_logs_groups_are_those_of_killed_processes(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(LOG)
    assert killed_groups(log) == ["/docker/x", None, "/system.slice/docker-y.scope"]
    assert killed_groups(tmp_path / "none") == []


def test_the_count_is_the_kernels_own(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 41\noom_kill_other 3\n")
    assert kernel_kills(vmstat) == 41
    vmstat.write_text("nr_free_pages 12\n")
    assert kernel_kills(vmstat) is None
    assert kernel_kills(tmp_path / "none") is None

"""What every engine promises, whatever it runs tasks in: the fake, processes, and real containers."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.engine_rigs import LOG_LIMIT, Rig, make, processes_with, run, sh
from hakuriver.models.runner import AttemptSpec
from hakuriver_agent.engines.port import Launch, StartCancelledError, UnitState, Used

REAL = ["process", pytest.param("docker", marks=pytest.mark.docker)]
ALL = ["fake", *REAL]
WITHIN = 30.0


@pytest.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    # Not pytest's own folder, into which other users may not go.
    with tempfile.TemporaryDirectory(prefix="hakuriver-rig-") as folder:
        made = make(request.param, Path(folder))
        yield made
        await made.close()


every_engine = pytest.mark.parametrize("rig", ALL, indirect=True)
limiting_engines = pytest.mark.parametrize(
    "rig", [pytest.param("process", marks=pytest.mark.control_groups), REAL[1]], indirect=True
)
real_engines = pytest.mark.parametrize("rig", REAL, indirect=True)


async def soon(probe: object, what: str) -> None:
    """Waits until `probe()` is true, with a deadline."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while not probe():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


@every_engine
async def test_it_works_here(rig: Rig) -> None:
    assert await rig.engine().problem() is None


@every_engine
@pytest.mark.parametrize("code", [0, 3, 255])
async def test_exit_codes_are_the_programs_own(rig: Rig, code: int) -> None:
    ended = await run(rig.engine(), rig.spec(rig.exits(code)))
    assert (ended.exit_code, ended.oom, ended.message) == (code, False, None)


@real_engines
async def test_a_signal_gives_128_and_its_number(rig: Rig) -> None:
    ended = await run(rig.engine(), rig.spec(sh("sh -c 'kill -9 $$'; exit $?")))
    assert (ended.exit_code, ended.oom) == (137, False)


@every_engine
async def test_a_missing_program_gives_127_and_one_line(rig: Rig) -> None:
    ended = await run(rig.engine(), rig.spec(["no-such-program"]))
    assert ended.exit_code == 127
    assert ended.message is not None
    assert "no-such-program" in ended.message
    assert "\n" not in ended.message


@real_engines
async def test_a_file_that_is_no_program_gives_126(rig: Rig) -> None:
    ended = await run(rig.engine(), rig.spec(["/etc/passwd"]))
    assert ended.exit_code == 126
    assert ended.message is not None


@every_engine
async def test_terminate_lets_a_program_end_by_itself(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.waits())
    await engine.start(spec, Launch())
    await _traps_are_set(rig)
    await engine.terminate(spec.key)
    assert (await asyncio.wait_for(engine.wait(spec.key), WITHIN)).exit_code == 143


@every_engine
async def test_kill_ends_what_ignores_terminate(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.deaf())
    await engine.start(spec, Launch())
    await _traps_are_set(rig)
    await engine.terminate(spec.key)
    assert [unit.state for unit in await engine.units()] == [UnitState.RUNNING]
    await engine.kill(spec.key)
    ended = await asyncio.wait_for(engine.wait(spec.key), WITHIN)
    assert (ended.exit_code, ended.oom) == (137, False)


@every_engine
async def test_kill_after_the_end_is_no_error(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.exits(0))
    await run(engine, spec)
    await engine.terminate(spec.key)
    await engine.kill(spec.key)
    assert (await engine.wait(spec.key)).exit_code == 0


@every_engine
async def test_a_start_that_was_cancelled_runs_nothing(rig: Rig) -> None:
    engine, spec, launch = rig.engine(), rig.spec(rig.waits()), Launch()
    launch.cancel()
    with pytest.raises(StartCancelledError):
        await engine.start(spec, launch)
    assert [unit for unit in await engine.units() if unit.state is not UnitState.CREATED] == []
    await engine.remove(spec.key)
    assert await engine.units() == []


@every_engine
async def test_a_repeated_start_runs_it_once(rig: Rig) -> None:
    engine = rig.engine()
    spec = rig.spec(sh("echo once; exit 4") if rig.real else ["exit", "4"])
    await engine.start(spec, Launch())
    again = rig.engine()
    await again.start(spec, Launch())
    assert (await asyncio.wait_for(again.wait(spec.key), WITHIN)).exit_code == 4
    assert rig.out(spec) == (b"once\n" if rig.real else b"")


@every_engine
async def test_pause_and_resume(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.waits())
    await engine.start(spec, Launch())
    await _traps_are_set(rig)
    await engine.pause(spec.key)
    assert [unit.state for unit in await engine.units()] == [UnitState.PAUSED]
    await engine.resume(spec.key)
    assert [unit.state for unit in await engine.units()] == [UnitState.RUNNING]
    await engine.terminate(spec.key)
    assert (await asyncio.wait_for(engine.wait(spec.key), WITHIN)).exit_code == 143


@real_engines
async def test_a_paused_program_does_nothing(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(sh("while :; do echo tick; done"))
    await engine.start(spec, Launch())
    await soon(lambda: rig.out(spec), "it ticks")
    await engine.pause(spec.key)
    before = await _settled_size(rig.folders.shared / spec.stdout_path)
    assert await _settled_size(rig.folders.shared / spec.stdout_path) == before
    await engine.resume(spec.key)
    await soon(lambda: len(rig.out(spec)) > before, "it goes on")


@every_engine
@pytest.mark.parametrize("verb", ["terminate", "kill"])
async def test_a_paused_unit_can_be_ended(rig: Rig, verb: str) -> None:
    engine, spec = rig.engine(), rig.spec(rig.waits())
    await engine.start(spec, Launch())
    await _traps_are_set(rig)
    await engine.pause(spec.key)
    await getattr(engine, verb)(spec.key)
    ended = await asyncio.wait_for(engine.wait(spec.key), WITHIN)
    assert ended.exit_code == (143 if verb == "terminate" else 137)


@every_engine
@pytest.mark.control_groups
async def test_what_it_uses_is_told_while_it_runs(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.uses("go"), cores=1)
    await engine.start(spec, Launch())
    if rig.real:
        await soon(lambda: b"s\n" in rig.out(spec), "it has used what it was to use")
    asked, other = Used(_processor_seconds(rig, spec), None, 100_000_000), (1, 1)
    told = (await engine.usage([spec.key, other]))[spec.key]
    _check_used(told, asked)
    assert other not in await engine.usage([other])
    second = rig.engine()
    assert await second.adopt(spec) is not None
    _check_used((await second.usage([spec.key]))[spec.key], asked)
    if rig.real:
        (rig.folders.shared_data / "go").touch()
    else:
        await second.terminate(spec.key)
    ended = await asyncio.wait_for(second.wait(spec.key), WITHIN)
    if rig.kind != "docker":  # Whose account goes with the container.
        assert ended.used is not None
        _check_used(ended.used, asked)


@pytest.mark.parametrize("rig", ["process"], indirect=True)
async def test_what_it_used_is_told_without_control_groups(rig: Rig) -> None:
    rig.rules["control_groups"] = False
    (rig.folders.shared_data / "go").touch()
    spec = rig.spec(rig.uses("go"))
    ended = await run(rig.engine(), spec)
    assert ended.used is not None
    _check_used(ended.used, Used(_processor_seconds(rig, spec), None, 100_000_000))


@pytest.mark.parametrize("rig", ["process"], indirect=True)
async def test_one_that_is_over_at_once_has_used_something(rig: Rig) -> None:
    ended = await run(rig.engine(), rig.spec(["true"]))
    assert ended.used is not None
    assert 0 < (ended.used.cpu_seconds or 0) < 1
    assert 0 < (ended.used.peak_bytes or 0) < 100_000_000


@pytest.mark.parametrize("rig", ["docker"], indirect=True)
@pytest.mark.docker
async def test_the_engine_is_asked_where_control_groups_cannot_be_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, spec = rig.engine(), rig.spec(rig.uses("go"), cores=1)
    monkeypatch.setattr(engine._usage, "_proc", rig.folder)  # type: ignore[attr-defined]
    await engine.start(spec, Launch())
    await soon(lambda: b"s\n" in rig.out(spec), "it has used what it was to use")
    _check_used(
        (await engine.usage([spec.key]))[spec.key], Used(_processor_seconds(rig, spec), None, 100_000_000)
    )


def _check_used(told: Used, least: Used) -> None:
    """At least what it says itself, and not much more. `times` counts in hundredths, of each process rounded down or up."""
    assert told.cpu_seconds is not None
    assert told.peak_bytes is not None
    assert least.cpu_seconds is not None
    assert least.peak_bytes is not None
    assert least.cpu_seconds - 0.1 <= told.cpu_seconds <= 1.2 * least.cpu_seconds + 0.5
    assert least.peak_bytes <= told.peak_bytes <= 6 * least.peak_bytes


def _processor_seconds(rig: Rig, spec: AttemptSpec) -> float:
    """What `times` printed: user and system time of the shell, then of its children."""
    if not rig.real:
        return 1.5
    words = rig.out(spec).decode().replace("s", "").split()
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in (word.split("m") for word in words))


@limiting_engines
async def test_a_program_over_its_memory_is_an_oom(rig: Rig) -> None:
    ended = await run(rig.engine(), rig.spec(["tail", "/dev/zero"], memory_bytes=32_000_000))
    assert (ended.exit_code, ended.oom) == (137, True)


@limiting_engines
async def test_a_child_over_the_memory_does_not_fail_its_parent(rig: Rig) -> None:
    # At once it might go before the Docker engine has begun to watch, and then nobody can tell: see `memory_kills`.
    ended = await run(rig.engine(), rig.spec(sh("sleep 1; tail /dev/zero; exit 0"), memory_bytes=32_000_000))
    assert (ended.exit_code, ended.oom) == (0, True)


@every_engine
async def test_output_goes_to_its_files(rig: Rig) -> None:
    engine = rig.engine()
    said, complained = rig.spec(rig.prints("ä\n")), rig.spec(rig.complains("ö"))
    await asyncio.gather(run(engine, said), run(engine, complained))
    assert (rig.out(said), rig.err(said)) == ("ä\n".encode(), b"")
    assert (rig.out(complained), rig.err(complained)) == (b"", "ö".encode())


@real_engines
async def test_output_is_kept_byte_by_byte(rig: Rig) -> None:
    script = r"""i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done; head -c 3000000 /dev/zero"""
    spec = rig.spec(sh(script))
    assert (await run(rig.engine(), spec)).exit_code == 0
    assert rig.out(spec) == bytes(range(256)) + bytes(3_000_000)


@real_engines
async def test_output_beyond_the_limit_is_dropped_and_noted(rig: Rig) -> None:
    spec = rig.spec(sh("head -c 6000000 /dev/zero; echo end >&2"))
    assert (await run(rig.engine(), spec)).exit_code == 0
    note = f"\n[hakuriver: output beyond {LOG_LIMIT} bytes was dropped]\n".encode()
    assert rig.out(spec) == bytes(LOG_LIMIT) + note
    assert rig.err(spec) == b"end\n"


@every_engine
async def test_a_new_life_takes_up_what_runs(rig: Rig) -> None:
    first, spec = rig.engine(), rig.spec(rig.waits())
    started = await first.start(spec, Launch())
    await _traps_are_set(rig)
    await first.close()
    second = rig.engine()
    adopted = await second.adopt(spec)
    assert adopted is not None
    assert adopted.started.unit_name == started.unit_name
    assert not adopted.paused
    await second.terminate(spec.key)
    assert (await asyncio.wait_for(second.wait(spec.key), WITHIN)).exit_code == 143


@every_engine
async def test_a_new_life_learns_how_it_ended_meanwhile(rig: Rig) -> None:
    first, spec = rig.engine(), rig.spec(rig.exits(5))
    await first.start(spec, Launch())
    await first.close()
    second = rig.engine()
    await _until_state(rig, second, UnitState.ENDED)
    assert await second.adopt(spec) is not None
    assert (await asyncio.wait_for(second.wait(spec.key), WITHIN)).exit_code == 5


@every_engine
async def test_a_new_life_finds_it_paused(rig: Rig) -> None:
    first, spec = rig.engine(), rig.spec(rig.waits())
    await first.start(spec, Launch())
    await first.pause(spec.key)
    await first.close()
    adopted = await rig.engine().adopt(spec)
    assert adopted is not None
    assert adopted.paused


@every_engine
async def test_what_was_never_started_is_not_adopted(rig: Rig) -> None:
    assert await rig.engine().adopt(rig.spec(rig.waits())) is None


@real_engines
async def test_no_output_is_lost_or_repeated_over_a_new_life(rig: Rig) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; echo e $i >&2; i=$((i+1)); done; while [ ! -e go ]; do sleep 0.02; done; echo more"
    first, spec = rig.engine(), rig.spec(sh(script))
    await first.start(spec, Launch())
    await soon(lambda: rig.out(spec), "it prints")
    await first.close()
    second = rig.engine()
    assert await second.adopt(spec) is not None
    (rig.folders.shared_data / "go").touch()
    assert (await asyncio.wait_for(second.wait(spec.key), WITHIN)).exit_code == 0
    lines = "".join(f"line {i}\n" for i in range(3000)) + "more\n"
    assert rig.out(spec) == lines.encode()
    assert rig.err(spec) == "".join(f"e {i}\n" for i in range(3000)).encode()


@every_engine
async def test_units_are_found_by_their_label(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.waits(), time_limit_seconds=77)
    await engine.start(spec, Launch())
    (unit,) = await rig.engine().units()
    assert (unit.key, unit.state) == (spec.key, UnitState.RUNNING)
    assert unit.spec.time_limit_seconds == 77
    assert (unit.spec.stdout_path, unit.spec.owner) == (spec.stdout_path, "tester")


@every_engine
async def test_removing_leaves_nothing(rig: Rig) -> None:
    engine, spec = rig.engine(), rig.spec(rig.exits(0))
    await run(engine, spec)
    await engine.remove(spec.key)
    assert await engine.units() == []
    assert not rig.scratch(spec).exists()
    await engine.remove(spec.key)


@every_engine
async def test_arguments_pass_no_shell(rig: Rig) -> None:
    words = ["$HOME", "a b", "`id`", "; exit 1", "*", "", "'", '"', "\\"]
    spec = rig.spec(rig.shows_arguments(*words))
    await run(rig.engine(), spec)
    assert rig.out(spec).decode().rstrip("\n").split("\n") == words


@every_engine
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GREETING", "hello world"),
        ("HAKURIVER_ATTEMPT", "1"),
        ("HAKURIVER_TASK_INDEX", "4"),
    ],
)
async def test_variables(rig: Rig, name: str, value: str) -> None:
    spec = rig.spec(rig.shows_variable(name), env_vars={"GREETING": "hello world"}, index=4)
    await run(rig.engine(), spec)
    assert rig.out(spec).decode().rstrip("\n") == value


@real_engines
async def test_a_task_sees_nothing_of_the_runners_variables(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAKURIVER_JOIN_TOKEN", "secret")
    spec = rig.spec(["env"])
    await run(rig.engine(), spec)
    assert b"secret" not in rig.out(spec)


@real_engines
async def test_it_begins_in_the_shared_folder(rig: Rig) -> None:
    spec = rig.spec(sh('echo found > here; test "$PWD" -ef "$HAKURIVER_SHARED_DIR"'))
    assert (await run(rig.engine(), spec)).exit_code == 0
    assert (rig.folders.shared_data / "here").read_text() == "found\n"


@real_engines
async def test_it_begins_where_it_asks_to(rig: Rig) -> None:
    spec = rig.spec(["pwd"], working_dir="/tmp")
    await run(rig.engine(), spec)
    assert rig.out(spec) == b"/tmp\n"


@real_engines
async def test_its_scratch_is_its_own(rig: Rig) -> None:
    spec = rig.spec(sh('cd "$HAKURIVER_LOCAL_TEMP_DIR" && pwd && echo mine > file'))
    ended = await run(rig.engine(), spec)
    assert ended.exit_code == 0
    scratch = rig.scratch(spec)
    assert (scratch / "file").read_text() == "mine\n"
    assert scratch.stat().st_mode & 0o777 == 0o700


@real_engines
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs tasks as others")
async def test_it_runs_as_its_user(rig: Rig) -> None:
    spec = rig.spec(sh('id -u; id -g; touch "$HAKURIVER_LOCAL_TEMP_DIR/x" mine'), user="12345:23456")
    assert (await run(rig.engine(), spec)).exit_code == 0
    assert rig.out(spec) == b"12345\n23456\n"
    mine = (rig.folders.shared_data / "mine").stat()
    assert (mine.st_uid, mine.st_gid) == (12345, 23456)


@real_engines
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs tasks as others")
async def test_it_runs_as_its_owner_where_the_node_says_so(rig: Rig) -> None:
    rig.rules["run_as_owner"] = True
    engine, asks_for_root = rig.engine(), rig.spec(sh("id -u"), user="0", owner_uid="12345:23456")
    assert "0 is not tester" in (await engine.refusal(asks_for_root) or "")
    ended = await run(engine, asks_for_root)
    assert (ended.exit_code, rig.out(asks_for_root)) == (None, b"")
    own = rig.spec(sh('id -u; id -g; touch "$HAKURIVER_LOCAL_TEMP_DIR/x"'), owner_uid="12345:23456")
    assert await engine.refusal(own) is None
    assert (await run(engine, own)).exit_code == 0
    assert rig.out(own) == b"12345\n23456\n"


@pytest.mark.parametrize("rig", ["docker"], indirect=True)
async def test_in_a_container_it_is_its_owner_unless_another_is_asked_for(rig: Rig) -> None:
    for asked, expected in ((None, b"12345\n23456\n"), ("0", b"0\n0\n")):
        spec = rig.spec(sh("id -u; id -g"), user=asked, owner_uid="12345:23456")
        assert (await run(rig.engine(), spec)).exit_code == 0
        assert rig.out(spec) == expected


@pytest.mark.parametrize("rig", ["process"], indirect=True)
@pytest.mark.skipif(os.geteuid() != 0, reason="another Runner is root for nobody")
async def test_nobody_is_root_without_container_unless_the_node_says_so(rig: Rig) -> None:
    rig.rules |= {"allow_any_user": False}
    engine = rig.engine()
    for changes in ({}, {"user": "0"}, {"owner_uid": "0:0"}, {"user": "7"}):
        spec = rig.spec(sh("id -u"), **changes)
        assert await engine.refusal(spec), changes
        assert (await run(engine, spec)).exit_code is None
        assert rig.out(spec) == b""
    for user in (None, "12345"):
        own = rig.spec(sh("id -u; id -g"), user=user, owner_uid="12345:23456")
        assert await engine.refusal(own) is None
        assert (await run(engine, own)).exit_code == 0
        assert rig.out(own) == b"12345\n23456\n"


@pytest.mark.parametrize("rig", ["process"], indirect=True)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs tasks as others")
async def test_tasks_of_a_common_user_read_no_log_of_each_other(rig: Rig) -> None:
    rig.rules |= {"allow_any_user": False, "runner_user": "nobody"}
    engine, secret = rig.engine(), rig.spec(sh("echo secret; id -un"))
    assert (await run(engine, secret)).exit_code == 0
    assert rig.out(secret) == b"secret\nnobody\n"
    reads = rig.spec(sh(f"cat {rig.folders.shared / secret.stdout_path}"))
    assert (await run(engine, reads)).exit_code == 1
    assert rig.out(reads) == b""


@pytest.mark.docker
@pytest.mark.parametrize("rig", ["docker"], indirect=True)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hold what it has checked")
@pytest.mark.parametrize("kind", ["folder", "file"])
async def test_a_mount_is_what_was_checked_whatever_its_path_leads_to_later(
    rig: Rig, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, aside, secret = (rig.folder / name for name in ("allowed/x", "allowed/y", "secret"))
    for path, text in ((source, "mine"), (secret, "secret")):
        if kind == "folder":
            path.mkdir()
        (path / "f" if kind == "folder" else path).write_text(text)
    engine = rig.engine()
    real = engine._start  # type: ignore[attr-defined]

    def swapped(*arguments: object) -> None:
        source.rename(aside)
        source.symlink_to(secret)
        real(*arguments)

    monkeypatch.setattr(engine, "_start", swapped)
    spec = rig.spec(sh("cat /in/f 2>/dev/null || cat /in"), mounts=[f"{source}:/in:ro"])
    assert (await run(engine, spec)).exit_code == 0
    assert rig.out(spec) == b"mine"
    assert list(rig.folders.held_sources.iterdir()) == []
    assert not _mounts_in(rig.folder)


@real_engines
async def test_nothing_that_it_started_outlives_it(rig: Rig) -> None:
    mark = f"{9_000_000 + os.getpid()}.{len(rig.keys)}"
    spec = rig.spec(sh(f"setsid sleep {mark} & sleep {mark} & exit 0"))
    assert (await asyncio.wait_for(run(rig.engine(), spec), WITHIN)).exit_code == 0
    await soon(lambda: not processes_with(mark), "its processes are gone")


@pytest.mark.parametrize("rig", ["process"], indirect=True)
@pytest.mark.parametrize("how", ["it ends", "it is killed"])
async def test_nothing_outlives_it_without_control_groups(rig: Rig, how: str) -> None:
    """As where the Runner is not root, or may not write them."""
    mark = f"{8_000_000 + os.getpid()}.{len(rig.folder.name)}"
    rig.rules["control_groups"] = False
    engine = rig.engine()
    beside = rig.spec(sh(f"setsid sleep {mark}1 & wait"))
    await engine.start(beside, Launch())
    leaves = f"setsid sh -c 'setsid sleep {mark}2 & sleep {mark}2' &"
    spec = rig.spec(sh(f"{leaves} until [ -e go ]; do sleep 0.02; done; exit 3"))
    await engine.start(spec, Launch())
    await soon(lambda: len(processes_with(f"sleep\0{mark}2")) == 2, "all run")
    if how == "it ends":
        (rig.folders.shared_data / "go").touch()
    else:
        await engine.kill(spec.key)
    ended = await asyncio.wait_for(engine.wait(spec.key), WITHIN)
    assert (ended.exit_code, ended.message) == (3 if how == "it ends" else 137, None)
    await soon(lambda: not processes_with(f"{mark}2"), "its processes are gone")
    assert processes_with(f"{mark}1"), "those of others go on"
    await engine.kill(beside.key)


@real_engines
async def test_many_at_once(rig: Rig) -> None:
    engine = rig.engine()
    specs = [rig.spec(sh(f"echo {number}; exit {number}")) for number in range(12)]
    ends = await asyncio.gather(*(run(engine, spec) for spec in specs))
    assert [ended.exit_code for ended in ends] == list(range(12))
    assert [rig.out(spec) for spec in specs] == [f"{number}\n".encode() for number in range(12)]


def _mounts_in(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(folder) in line]


async def _traps_are_set(rig: Rig) -> None:
    """A shell needs a moment until its trap holds: it then sleeps in a child."""
    if rig.real:
        await soon(lambda: processes_with("sleep\x000.02"), "the program has begun")


async def _until_state(rig: Rig, engine: object, state: UnitState) -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN
    while [unit.state for unit in await engine.units()] != [state]:  # type: ignore[attr-defined]
        assert asyncio.get_running_loop().time() < deadline, f"it is {state}"
        await asyncio.sleep(0.02)


async def _settled_size(path: Path) -> int:
    """The size, once it is the same at several looks: what was in the pipes has arrived."""
    sizes: list[int] = []
    while len(sizes) < 5 or len(set(sizes[-5:])) > 1:
        sizes.append(path.stat().st_size)  # noqa: ASYNC240 - a local file
        await asyncio.sleep(0.02)
    return sizes[-1]

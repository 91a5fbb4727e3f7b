"""Environments with the Runner as a real process: killed in the middle of a load, asked to sync, told in heartbeats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hakuriver.models.environments import SyncProgress, VersionManifest
from hakuriver.models.errors import ErrorBody
from hakuriver.states import TaskState
from integration.agent.stand_in import RealRunner, StandInHost, stand_in
from support import engine, store
from support.waiting import until

pytestmark = pytest.mark.docker
VERSION = 1_700_000_000
LARGE = 60_000_000
Pair = tuple[StandInHost, RealRunner]


@pytest.fixture
def packed(tmp_path: Path) -> Iterator[VersionManifest]:
    """A version in which commands run, with a layer that takes a moment to load."""
    name = store.unique()
    layers = [store.system(), store.layer(name, LARGE)]
    manifest = store.write_version(tmp_path / "shared" / "hakuriver-containers", name, VERSION, layers)
    yield manifest
    store.remove_images(manifest)


@pytest.fixture
def pair(tmp_path: Path, packed: VersionManifest) -> Iterator[Pair]:
    """Goes, with its containers, before the image does."""
    del packed
    with stand_in(tmp_path) as (host, runner):
        yield host, runner


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[RealRunner]:
    """A Runner on a machine without an engine."""
    socket = f"unix://{tmp_path}/no.sock"
    with stand_in(tmp_path, {"docker": {"socket": socket}}) as (_, runner):
        runner.start()
        yield runner


def of(manifest: VersionManifest) -> dict[str, Any]:
    return {
        "engine": "docker",
        "environment": manifest.name,
        "environment_version": str(manifest.version),
    }


def synced(runner: RealRunner, manifest: VersionManifest) -> list[SyncProgress]:
    with runner.http.stream("POST", "/api/sync", json={"name": manifest.name, "version": VERSION}) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        return [SyncProgress.model_validate_json(text) for text in answer.iter_lines()]


def test_a_task_runs_in_a_version_of_layers(pair: Pair, packed: VersionManifest) -> None:
    host, runner = pair
    runner.start()
    spec = runner.spec("sh", "-c", "echo in; exit 3", **of(packed))
    runner.run([spec])
    final = host.final(spec)
    assert (final.exit_code, final.image) == (3, packed.image)
    assert runner.out(spec) == b"in\n"
    lines = [report.message for report in host.of(spec) if report.status is TaskState.ASSIGNING]
    assert f"syncing {packed.name}@{VERSION}: 0 of " in (lines[0] or "")
    has = f"{packed.name}:{VERSION}"
    host.wait(lambda: host.heartbeats and has in host.heartbeats[-1].environments, "the Host is told")


def test_killed_in_the_middle_of_a_load_it_loads_again(pair: Pair, packed: VersionManifest) -> None:
    host, runner = pair
    runner.start()
    # Its first life reads more than the others: it copies the tools of VPS.
    runner.restart()
    at_start = _bytes_read(runner)
    spec = runner.spec("sh", "-c", "echo once", **of(packed))
    runner.run([spec])
    for part in (0.05, 0.3, 0.6, 0.95):

        def has_come(part: float = part) -> bool:
            # What the engine was given whole before the last end it may have loaded after it: then nothing is read any more.
            return _bytes_read(runner) > at_start + part * LARGE or _image(packed) is not None

        until(has_come, "it has read a part of the layer")
        runner.daemon.kill()
        image = _image(packed)
        assert image in {None, packed.image}, "all of it or nothing"
        assert image is None or part > 0.5, "this early nothing can be there"
        runner.daemon.start()
        if image is not None:
            break
    assert host.final(spec).exit_code == 0
    assert runner.out(spec) == b"once\n"
    assert _image(packed) == packed.image


def test_a_sync_tells_how_it_goes(pair: Pair, packed: VersionManifest) -> None:
    _, runner = pair
    runner.start()
    told = synced(runner, packed)
    assert [one.state for one in told[:2]] == ["waiting", "loading"]
    assert {(one.name, one.version, one.node) for one in told} == {(packed.name, VERSION, runner.name)}
    done = [one.done for one in told]
    assert done == sorted(done)
    assert (told[-1].state, told[-1].done) == ("ready", told[-1].total)
    assert told[-1].total in {packed.size, packed.layers[1].size}, "another image may have the system's layer"
    assert [one.state for one in synced(runner, packed)] == ["waiting", "ready"]


def test_a_sync_goes_on_when_its_caller_goes_away(pair: Pair, packed: VersionManifest) -> None:
    _, runner = pair
    runner.start()
    body = {"name": packed.name, "version": VERSION}
    with runner.http.stream("POST", "/api/sync", json=body) as answer:
        next(answer.iter_lines())
    until(lambda: engine.has_image(packed.tag), "it is loaded")
    assert not (runner.daemon.output().count("Traceback"))


def test_a_sync_that_fails_says_why(pair: Pair, packed: VersionManifest) -> None:
    _, runner = pair
    runner.start()
    store.blob(runner.shared / "hakuriver-containers", packed, 1).unlink()
    last = synced(runner, packed)[-1]
    assert last.state == "failed"
    assert "is missing on the share" in (last.reason or "")


@pytest.mark.parametrize(("body", "status"), [({"name": "base", "version": 1}, 409), ({"name": "../x"}, 400)])
def test_a_sync_is_refused_where_there_is_no_engine(
    bare: RealRunner, body: dict[str, Any], status: int
) -> None:
    answer = bare.http.post("/api/sync", json=body)
    assert answer.status_code == status
    error = ErrorBody.model_validate_json(answer.content)
    assert status != 409 or "socket is missing" in error.message


def _bytes_read(runner: RealRunner) -> int:
    """By the Runner's process in this life."""
    return int(psutil.Process(runner.daemon.pid).io_counters().read_chars)


def _image(manifest: VersionManifest) -> str | None:
    return engine.client().images.get(manifest.tag).id if engine.has_image(manifest.tag) else None

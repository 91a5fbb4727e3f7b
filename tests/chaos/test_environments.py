"""Packing killed at any moment: the catalogue is whole each time, the container runs on, and nothing stays behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hakuriver.errors import ConflictError
from hakuriver.models.environments import EnvironmentCreate
from hakuriver.store import Catalog, docker_archive, read_layer
from hakuriver_host.services.environments.collecting import collect
from hakuriver_host.services.environments.engine import LABEL_CLUSTER, LABEL_HELPER, HostEngine
from hakuriver_host.services.environments.garbage import Retention
from hakuriver_host.services.environments.making import Maker
from support import engine as docker_support
from support.daemons import clean_environment
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.chaos]

NAME = "chaos"
ROUNDS = int(os.environ.get("HAKURIVER_CHAOS_PACKINGS", "60"))
KEEP_ALL = Retention(None, None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[HostEngine, Catalog, str]]:
    """A container of an environment, and an empty store."""
    cluster = f"chaos-{uuid.uuid4().hex[:8]}"
    engine, catalog = HostEngine("", cluster), Catalog(tmp_path / "store")
    docker_support.write_environment(catalog.root)
    maker = Maker(engine, catalog, tmp_path / "none", tmp_path / "scratch", tmp_path / "memory")
    maker.create(EnvironmentCreate(name=NAME, base=docker_support.ENVIRONMENT), "tester")
    try:
        yield engine, catalog, cluster
    finally:
        engine.recover(busy=())
        engine.remove(NAME)
        for version in catalog.versions(NAME):
            docker_support.remove_image(NAME, version)


@contextmanager
def packing(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**clean_environment(), "PYTHONPATH": str(Path(docker_support.__file__).parents[1])}
    command = [sys.executable, "-m", "support.packing", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_packings_that_are_killed(
    world: tuple[HostEngine, Catalog, str], tmp_path: Path, chance: random.Random
) -> None:
    engine, catalog, cluster = world
    longest, killed = 1.0, 0
    with packing(str(catalog.root), str(tmp_path / "memory"), cluster, NAME) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for number in range(ROUNDS):
            _change(engine, number)
            server.stdin.write("pack\n")
            server.stdin.flush()
            began = time.monotonic()
            pid = int(server.stdout.readline().removeprefix("begun "))
            survives = number % 10 == 9  # Some must get through, so that there is more to break.
            if not survives:
                time.sleep(chance.uniform(0, longest))
                with suppress(ProcessLookupError):  # It may have got through.
                    os.kill(pid, signal.SIGKILL)
            code = int(server.stdout.readline().removeprefix("ended "))
            assert code in {0, -signal.SIGKILL}
            killed += code != 0
            if survives:
                assert code == 0
                longest = time.monotonic() - began
            # The engine may still be doing what the killed one had asked for.
            until(lambda: _is_recovered(engine), "helpers are gone, and the container goes on")
            catalog.sweep_temporary()
            _assert_whole(catalog)
    assert killed > ROUNDS // 2
    collect(catalog, {}, KEEP_ALL, dry_run=False)
    _assert_whole(catalog)
    assert len([*(catalog.root / "blobs/sha256").iterdir()]) == len(_layers(catalog))
    _assert_last_runs(engine, catalog)


def _change(engine: HostEngine, number: int) -> None:
    script = (
        f"echo {number} > /number; head -c 2000000 /dev/urandom > /data{number % 5}; "
        f"rm -f /data{(number + 2) % 5}"
    )
    while True:
        try:
            code, _ = engine.execs(engine.container(NAME)).run(["sh", "-c", script])
        except ConflictError:  # A pause that the killed one asked for, and that came late.
            engine.start(NAME)
            continue
        assert code == 0
        return


def _is_recovered(engine: HostEngine) -> bool:
    engine.recover(busy=())
    labels = [f"{LABEL_CLUSTER}={engine._cluster}", LABEL_HELPER]
    helpers = engine.client().containers(all=True, filters={"label": labels})
    return not helpers and engine.container(NAME).state == "running"


def _assert_whole(catalog: Catalog) -> None:
    assert not [*(catalog.root / "tmp").glob("*")]
    for version in catalog.versions(NAME):
        manifest = catalog.manifest(NAME, version)
        assert manifest is not None
    # The newest is read whole: older ones are of the same layers, and were read when they were the newest.
    for version in catalog.versions(NAME)[:1]:
        manifest = catalog.manifest(NAME, version)
        assert manifest is not None
        for layer in manifest.layers:
            assert sum(len(piece) for piece in read_layer(catalog.root, layer)) == layer.size


def _layers(catalog: Catalog) -> set[str]:
    manifests = [catalog.manifest(NAME, version) for version in catalog.versions(NAME)]
    return {layer.diff_id for manifest in manifests if manifest for layer in manifest.layers}


def _assert_last_runs(engine: HostEngine, catalog: Catalog) -> None:
    manifest = catalog.manifest(NAME, catalog.versions(NAME)[0])
    assert manifest is not None
    engine.load(docker_archive(manifest, lambda layer: read_layer(catalog.root, layer)))
    ran = docker_support.client().containers.run(manifest.tag, ["cat", "/number"], remove=True)
    assert int(ran) == ROUNDS - 1, "the last round got through"

"""Killed by SIGKILL at random moments of a load, again and again: the engine has all of a version or nothing of it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import engine, store
from support.daemons import clean_environment
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.chaos]
KILLS = 50
SIZE = 4_000_000


def test_a_load_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    name, chance = store.unique("kills"), random.Random(4)
    root, state = tmp_path / "containers", tmp_path / "state"
    state.mkdir()
    base = store.write_version(root, name, 1, [store.system()])
    manifest = store.write_version(root, name, 2, [store.system(), store.layer(name, SIZE)])
    files = _files(root)
    try:
        assert _finish(_process(root, state, name, 1)) == "ready"
        began = time.monotonic()
        assert _finish(_process(root, state, name, 2)) == "ready"
        usual = time.monotonic() - began
        outcomes = {None: 0, manifest.image: 0}
        for _ in range(KILLS):
            engine.remove_image(name, 2)
            process = _process(root, state, name, 2)
            _say_go(process)
            time.sleep(chance.uniform(0, usual))
            process.kill()
            process.wait()
            image = engine.client().images.get(manifest.tag).id if engine.has_image(manifest.tag) else None
            assert image in outcomes, "another image has the version's name"
            outcomes[image] += 1
        assert outcomes[None] > KILLS // 10, outcomes
        engine.remove_image(name, 2)
        assert _finish(_process(root, state, name, 2)) == "ready"
        script = f"test $(wc -c < /layer-{name}) = {SIZE}"
        engine.client().containers.run(manifest.tag, ["sh", "-c", script], network="none", remove=True)
        assert _files(root) == files, "the share is only read"
    finally:
        # The engine may still unpack what a process that was killed had sent to the end.
        until(lambda: _gone(name), "its images are gone")
        store.remove_images(base, manifest)


def _process(root: Path, state: Path, name: str, version: int) -> subprocess.Popen[str]:
    """A process that is about to load."""
    command = [sys.executable, "-m", "support.loading", str(root), str(state), name, str(version)]
    tests = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_environment(), "PYTHONPATH": tests},
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        assert process.poll() is None
    return process


def _say_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _finish(process: subprocess.Popen[str]) -> str:
    """Its last word."""
    return process.communicate("go\n", timeout=60)[0].strip().splitlines()[-1]


def _gone(name: str) -> bool:
    for version in (1, 2):
        engine.remove_image(name, version)
    return not any(engine.has_image(f"hakuriver/{name}:{version}") for version in (1, 2))


def _files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in root.rglob("*") if path.is_file()}

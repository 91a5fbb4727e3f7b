"""What is held of a mount's source: exactly what was opened, and nothing once it is let go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from threading import Event

import pytest

from hakuriver.config import Settings
from hakuriver_agent.engines import docker
from hakuriver_agent.engines.held_sources import HeldSources, clear_all
from hakuriver_agent.folders import Folders, ForbiddenPathError, open_without_links
from support.disks import small_disk
from unit.agent.agent_doubles import spec

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("where", ["last", "inner", "missing"])
def test_a_path_that_has_changed_is_not_opened(tmp_path: Path, where: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = tmp_path / "a" / "b"
    os.close(open_without_links(path))
    if where == "inner":
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "a").symlink_to(tmp_path / "c")
    else:
        path.rmdir()
    if where == "last":
        path.symlink_to("/")
    before = _descriptors()
    with pytest.raises(ForbiddenPathError, match="has changed"):
        open_without_links(path)
    assert _descriptors() == before


@root
@pytest.mark.small_disk
def test_what_is_mounted_below_a_source_comes_along_and_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "disk").mkdir(parents=True)
    with small_disk(source / "disk", 4):
        # As systemd has it: what is mounted in one place is mounted in all copies of it.
        subprocess.run(["mount", "--make-rshared", source / "disk"], check=True)
        (source / "disk" / "f").write_text("below")
        with HeldSources(tmp_path / "held" / "1-1") as held:
            place = held.hold(source)
            assert (place / "disk" / "f").read_text() == "below"
        assert (source / "disk" / "f").read_text() == "below"
    assert list((tmp_path / "held").iterdir()) == []


@root
def test_what_a_killed_runner_held_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    HeldSources(tmp_path / "held" / "1-1").hold(tmp_path / "source")
    assert str(tmp_path) in _mounts()
    clear_all(tmp_path / "held")
    assert str(tmp_path) not in _mounts()
    assert list((tmp_path / "held").iterdir()) == []
    assert (tmp_path / "source").is_dir()
    clear_all(tmp_path / "nowhere")


async def test_a_mount_that_hangs_is_refused_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "MOUNT_SECONDS", 0.05)
    settings = Settings.model_validate(
        {"paths": {"shared_dir": tmp_path, "state_dir": tmp_path}, "runner": {"name": "n1"}}
    )
    engine, mended = docker.DockerEngine(docker.DockerSettings("n1", Folders.of(settings), 1)), Event()
    monkeypatch.setattr(engine, "_binds", lambda _: mended.wait(10))
    refusal = await engine.refusal(
        spec(engine="docker", environment="base", environment_version="1", mounts=["/data:/data"])
    )
    mended.set()
    assert refusal == "a mount source does not answer on this node (/data:/data)"

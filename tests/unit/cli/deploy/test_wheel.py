"""The wheel carries the playbooks, the roles and the locks: who installs it deploys as a checkout does."""

from __future__ import annotations

import subprocess
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from hakuriver_cli.deploy import own_wheel

_ROOT = Path(__file__).resolve().parents[4]
_CARRIED = "hakuriver_cli/_ansible"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(_ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pip unpacks it."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_all_of_the_deployment_is_in_it_once(wheel: Path) -> None:
    folder = _ROOT / "ansible"
    linked = {path for path in folder.rglob("*") if path.is_symlink()}
    wanted = {
        f"{_CARRIED}/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not linked & {path, *path.parents}
    }
    assert wanted
    assert {name for name in _names(wheel) if name.startswith(_CARRIED)} == wanted


def test_the_roles_find_the_lock(installed: Path) -> None:
    role = installed / _CARRIED / "roles/hakuriver_install"
    default = yaml.safe_load((role / "defaults/main.yml").read_text("utf-8"))[
        "hakuriver_install_requirements"
    ]
    found = Path(default.replace("{{ role_path }}", str(role)))
    assert found.read_bytes() == (_ROOT / "requirements/runtime.txt").read_bytes()


def test_it_is_the_same_by_way_of_a_source_distribution(wheel: Path, tmp_path: Path) -> None:
    (archive,) = SdistBuilder(str(_ROOT)).build(directory=str(tmp_path))
    subprocess.run(["tar", "-xzf", archive, "-C", str(tmp_path)], check=True)
    (tree,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert _names(_built(tree, tmp_path / "wheel")) == _names(wheel)


def test_an_installation_makes_it_again(
    wheel: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (info,) = installed.glob("*.dist-info")
    monkeypatch.setattr(own_wheel, "distribution", lambda _: Distribution.at(info))
    again = own_wheel.repacked(tmp_path)
    assert again.name == wheel.name
    assert _contents(again) == _contents(wheel)


def _built(tree: Path, folder: Path) -> Path:
    (made,) = WheelBuilder(str(tree)).build(directory=str(folder))
    return Path(made)


def _names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def _contents(wheel: Path) -> dict[str, bytes]:
    """Of all but the list of them, whose order is the packer's own."""
    archive = zipfile.ZipFile(wheel)
    return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}

"""How containers are given GPUs, decided without an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hakuriver_agent.engines.gpu_access import (
    Ways,
    cdi_devices,
    chosen,
    host_config,
    is_made_with,
    visible,
    ways,
)
from hakuriver_agent.engines.port import StartFailedError

NUMBERS = {"GPU-a": 0, "GPU-b": 1}
MINORS = {"GPU-a": 40, "GPU-b": 41, "MIG-x": 41}


def specification(folder: Path, name: str, kind: str, *devices: str) -> None:
    told = {"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": device} for device in devices]}
    (folder / name).write_text(json.dumps(told), "utf-8")


def test_what_cdi_knows(tmp_path: Path) -> None:
    specification(tmp_path, "nvidia.json", "nvidia.com/gpu", "0", "GPU-a", "all")
    specification(tmp_path, "other.json", "vendor.com/net", "eth")
    (tmp_path / "nvidia.yaml").write_text(
        'kind: nvidia.com/gpu\ndevices:\n- name: "1"\n  x: {name: hook}\n', "utf-8"
    )
    (tmp_path / "broken.yaml").write_text("kind: [", "utf-8")
    (tmp_path / "odd.yaml").write_text("kind: nvidia.com/gpu\ndevices: 7\n", "utf-8")
    (tmp_path / "odder.yaml").write_text("kind: nvidia.com/gpu\ndevices: [7, name]\n", "utf-8")
    (tmp_path / "text.txt").write_text("kind: nvidia.com/gpu", "utf-8")
    assert cdi_devices([tmp_path, tmp_path / "none"]) == {"0", "GPU-a", "all", "1"}


def test_what_the_engine_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    specification(tmp_path, "nvidia.json", "nvidia.com/gpu", "0")
    assert ways({}) == Ways()
    assert ways({"CDISpecDirs": [str(tmp_path)]}) == Ways(frozenset({"0"}))
    assert ways({"CDISpecDirs": None, "Runtimes": {"runc": {}, "nvidia": {}}}) == Ways(runtime=True)
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.touch(0o755)
    assert ways({"Runtimes": {"runc": {}}}) == Ways(runtime=True)


def test_the_way_to_take() -> None:
    assert chosen("auto", Ways()) is None
    assert chosen("auto", Ways(frozenset({"0"}), runtime=True)) == "cdi"
    assert chosen("auto", Ways(runtime=True)) == "runtime"
    assert chosen("devices", Ways()) == "devices"


def test_by_the_runtime() -> None:
    config = host_config("runtime", ["GPU-a", "GPU-b"], NUMBERS, MINORS, frozenset())
    assert config == {"DeviceRequests": [{"DeviceIDs": ["GPU-a", "GPU-b"], "Capabilities": [["gpu"]]}]}


def test_by_cdi_under_the_name_that_it_knows() -> None:
    config = host_config("cdi", ["GPU-a", "GPU-b"], NUMBERS, MINORS, frozenset({"GPU-a", "1"}))
    assert config == {
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=1"]}]
    }
    with pytest.raises(StartFailedError, match="CDI does not know the GPU GPU-b"):
        host_config("cdi", ["GPU-b"], NUMBERS, MINORS, frozenset({"0"}))


def test_by_device_files() -> None:
    config = host_config("devices", ["GPU-b"], NUMBERS, MINORS, frozenset())
    assert config["Devices"][0] == {
        "PathOnHost": "/dev/nvidia41",
        "PathInContainer": "/dev/nvidia41",
        "CgroupPermissions": "rw",
    }
    for uuid in ("MIG-x", "GPU-unknown"):
        with pytest.raises(StartFailedError, match="no device file of its own"):
            host_config("devices", [uuid], NUMBERS, MINORS, frozenset())


def test_what_the_toolkits_runtime_is_told() -> None:
    assert visible("runtime", ["GPU-a", "GPU-b"]) == "GPU-a,GPU-b"
    assert visible("runtime", []) == visible(None, []) == visible("cdi", ["GPU-a"]) == "void"


def test_a_specification_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    specification(tmp_path, "nvidia.json", "nvidia.com/gpu", "0")
    assert cdi_devices([tmp_path]) == {"0"}
    specification(tmp_path, "nvidia.json", "nvidia.com/gpu", "0", "1")
    assert cdi_devices([tmp_path]) == {"0", "1"}


def test_a_container_of_other_gpus_is_told() -> None:
    made = host_config("devices", ["GPU-b"], NUMBERS, MINORS, frozenset())
    swapped = host_config("devices", ["GPU-b"], NUMBERS, {"GPU-a": 41, "GPU-b": 40}, frozenset())
    assert is_made_with(made, made, "devices")
    assert not is_made_with(made, swapped, "devices")
    by_number = host_config("cdi", ["GPU-b"], NUMBERS, MINORS, frozenset({"0", "1"}))
    other = host_config("cdi", ["GPU-b"], {"GPU-a": 1, "GPU-b": 0}, MINORS, frozenset({"0", "1"}))
    assert is_made_with({**by_number, "Devices": None}, by_number, "cdi")
    assert not is_made_with(by_number, other, "cdi")
    by_uuid = host_config("runtime", ["GPU-b", "GPU-a"], NUMBERS, MINORS, frozenset())
    assert is_made_with(
        by_uuid, host_config("runtime", ["GPU-a", "GPU-b"], NUMBERS, MINORS, frozenset()), "runtime"
    )
    assert not is_made_with({"DeviceRequests": None}, by_uuid, "runtime")

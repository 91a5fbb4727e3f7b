"""The filters of the playbooks, which lie outside every package: Ansible loads them by their path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parents[2] / "ansible/plugins/filter"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"filters_{name}", PLUGINS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

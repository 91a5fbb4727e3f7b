"""Lets the tests of the documentation import their own modules and the generator, and parse in peace."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(Path(__file__).parent), str(_ROOT / "scripts")]


@pytest.fixture(autouse=True)
def _nothing_is_collected() -> Iterator[None]:
    """What other tests have left must not be finalized while Python parses: who shows a traceback then parses too, and
    that of Debian 12 (3.11.2) takes this for a defect of its own, "AST constructor recursion depth mismatch".
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

"""Lets the tests of the documentation import their own modules and the generator."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(Path(__file__).parent), str(_ROOT / "scripts")]

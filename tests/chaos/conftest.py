"""Chaos runs with a fixed seed and a fixed budget: `HAKURIVER_CHAOS_SEED` and `HAKURIVER_CHAOS_TASKS` change them."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("HAKURIVER_CHAOS_SEED", "20"))
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)


@pytest.fixture
def task_count() -> int:
    return int(os.environ.get("HAKURIVER_CHAOS_TASKS", "200"))

"""Fixtures for all tests. Left-out tests are counted by `support.left_out`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support import postgres

pytest_plugins = ["support.left_out"]

# A machine that is busy with other tests is slow, and no fault of what is tested.
settings.register_profile("patient", settings(deadline=None))
settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgres.Server]:
    """One PostgreSQL server for the session; the test carries the marker `postgresql`."""
    with postgres.server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: postgres.Server) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database; the test carries the marker `postgresql`."""
    url = postgresql_server.new_database()
    yield url
    postgresql_server.drop_database(url)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """A test that leaves its own handler of Ctrl-C behind fails here, not in whatever test is interrupted next."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert handler in {signal.default_int_handler, signal.SIG_IGN}, f"left behind for SIGINT: {handler}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that two processes end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("chaos") is None)

"""Clusters for the end-to-end tests. Those for a whole file are shared by its tests: each names only its own tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cluster import Cluster, running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Host and one Runner of four cores; tasks are plain processes."""
    with running(Cluster(tmp_path_factory.mktemp("cluster"))) as started:
        yield started


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Host and two Runners of two cores each; tasks are plain processes."""
    with running(Cluster(tmp_path_factory.mktemp("pair"), runners=2, cores=2)) as started:
        yield started


@pytest.fixture(scope="module")
def container_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Host and one Runner of four cores; tasks run in real containers."""
    with running(Cluster(tmp_path_factory.mktemp("containers"), containers=True)) as started:
        yield started

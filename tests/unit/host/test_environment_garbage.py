"""What retention and the collection of garbage may take, and what never."""

from __future__ import annotations

import pytest

from hakuriver.models.environments import EnvironmentHead
from hakuriver_host.services.environments.garbage import Retention, expired, unused
from hakuriver_host.services.environments.packages import of_apk, of_dpkg, of_pip

DAY = 86_400
NOW = 100.0 * DAY
VERSIONS = [int(NOW - age * DAY) for age in range(10)]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Retention(None, None), []),
        (Retention(3, None), VERSIONS[3:]),
        (Retention(None, 4.5), VERSIONS[5:]),
        (Retention(3, 100), VERSIONS[3:]),
        (Retention(1, None), VERSIONS[1:]),
    ],
)
def test_too_many_and_too_old_ones_go(keep: Retention, expected: list[int]) -> None:
    assert expired(VERSIONS, EnvironmentHead(), (), keep, NOW) == sorted(expected)


def test_what_is_named_stays() -> None:
    head = EnvironmentHead(current=VERSIONS[8], tags={"paper": VERSIONS[7]})
    gone = expired(VERSIONS, head, {VERSIONS[6]}, Retention(1, 0.5), NOW)
    assert {*VERSIONS} - {*gone} == {VERSIONS[0], VERSIONS[6], VERSIONS[7], VERSIONS[8]}


def test_the_only_version_stays_however_old() -> None:
    assert expired([5], EnvironmentHead(), (), Retention(1, 1), NOW) == []


def test_layers_that_no_version_has_go_unless_they_came_meanwhile() -> None:
    assert unused({"a": 1.0, "b": 1.0, "c": 9.0}, {"a"}, started=5.0) == ["b"]


def test_package_managers_databases_are_read() -> None:
    status = (
        "Package: bash\nStatus: install ok installed\nVersion: 5.2\nDescription: shell\n more: text\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    assert of_dpkg(status) == {"bash": "5.2"}
    assert of_apk("C:Q1\nP:musl\nV:1.2.4\n\nP:zlib\nV:1.3\n") == {"musl": "1.2.4", "zlib": "1.3"}
    assert of_pip(b'[{"name": "numpy", "version": "2.0"}]') == {"numpy": "2.0"}
    assert of_pip(b"no pip here") == {}

"""What this machine cannot test is named and counted; with CI=true it fails.

A test says what it needs by a marker (`docker`, `deploy`, `postgresql`, `small_disk`, `gpus`,
`control_groups`). Skipping in any other way counts
just the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from hakuriver_agent.shim.cgroups import Cgroups
from support import disks, engine, nodes, nvml, postgres


def _no_groups() -> str | None:
    groups = Cgroups.detect(f"hakuriver-tests-{os.getpid()}")
    if groups is None:
        return "the tests' user cannot write control groups here"
    groups.remove_base()
    return None


NEEDS: dict[str, Callable[[], str | None]] = {
    "docker": engine.why_not,
    "deploy": nodes.why_not,
    "postgresql": postgres.why_not,
    "small_disk": disks.why_not,
    "control_groups": _no_groups,
    "gpus": nvml.why_not,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, why_not in NEEDS.items():
        if item.get_closest_marker(marker) and (reason := why_not()):
            pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _left_out(session.config) and _is_ci() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = _left_out(config)
    if not left_out:
        return
    terminalreporter.section("left out")
    for reason, count in left_out.most_common():
        terminalreporter.line(f"{count} left out: {reason}", red=_is_ci(), yellow=not _is_ci())
    if _is_ci():
        terminalreporter.line("with CI=true nothing may be left out: this run failed", red=True)


def _left_out(config: pytest.Config) -> Counter[str]:
    """How many tests were skipped, by reason; empty in the processes that only run tests for another."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return Counter()
    return Counter(_reason(report) for report in reporter.stats.get("skipped", []))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"

"""Environments, the pure parts: what a load brings and waits for, what the cache gives up, how progress is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hakuriver.models.environments import SyncProgress
from hakuriver_agent.engines.port import Launch
from hakuriver_agent.environments.cache import Cached, LastUse, layer_sizes, occupied, victim
from hakuriver_agent.environments.images import label_of
from hakuriver_agent.environments.planning import Chain, Flight, Load, Wait, common, plan
from hakuriver_agent.environments.progress import HANG_SECONDS, HANGS, Meter, Sync, line, seconds_left


def chain(text: str) -> Chain:
    return tuple(text)


@pytest.mark.parametrize(
    ("wanted", "present", "skip"),
    [
        ("abc", [], 0),
        ("abc", ["xyz"], 0),
        ("abc", ["a"], 1),
        ("abc", ["a", "abx", "ay"], 2),
        ("abc", ["abc"], 3),
        ("abc", ["abcd"], 3),
        ("abc", ["bc", "c"], 0),
        ("abca", ["abc"], 3),
        ("", ["a"], 0),
    ],
)
def test_a_load_leaves_out_the_longest_chain_that_is_there(
    wanted: str, present: list[str], skip: int
) -> None:
    assert plan(chain(wanted), map(chain, present), []) == Load(skip)


@pytest.mark.parametrize(
    ("wanted", "present", "flights", "decision"),
    [
        ("abc", [], [("abd", 0)], 0),
        ("abc", ["ab"], [("abd", 2)], 2),
        ("abc", ["a"], [("abd", 1)], 0),
        ("abc", [], [("xyz", 0)], 0),
        ("abc", [], [("ax", 0), ("aby", 0)], 1),
        ("abc", [], [("abcd", 0)], 0),
        ("abc", [], [("abc", 0)], 0),
        ("abc", [], [("abd", 2)], 0),
    ],
    ids=[
        "it brings two of three",
        "what is shared is there: both load",
        "it brings one more than is there",
        "nothing in common",
        "the one that brings most",
        "it brings all",
        "the same layers under another name",
        "it leaves out what is shared, which has gone since",
    ],
)
def test_a_load_waits_for_layers_that_another_one_brings(
    request: pytest.FixtureRequest,
    wanted: str,
    present: list[str],
    flights: list[tuple[str, int]],
    decision: int,
) -> None:
    on_way = [Flight(layers, chain(layers), skip) for layers, skip in flights]
    waits = request.node.callspec.id.startswith(("it brings", "the one", "the same"))
    expected = Wait(on_way[decision]) if waits else Load(decision)
    assert plan(chain(wanted), map(chain, present), on_way) == expected


def test_loads_of_one_base_never_wait_for_each_other_in_a_circle() -> None:
    flights: list[Flight] = []
    waiting = []
    for wanted in ("abx", "aby", "abz", "pq", "ab"):
        decision = plan(chain(wanted), [], flights)
        if isinstance(decision, Load):
            flights.append(Flight(wanted, chain(wanted), decision.skip))
        else:
            waiting.append((wanted, decision.flight.name))
    assert [flight.name for flight in flights] == ["abx", "pq"]
    assert waiting == [("aby", "abx"), ("abz", "abx"), ("ab", "abx")]


def test_common_layers_are_the_lowest_ones() -> None:
    assert [common(chain(a), chain(b)) for a, b in [("ab", "ab"), ("ab", "ac"), ("ab", "ba"), ("", "a")]] == [
        2,
        1,
        0,
        0,
    ]


def version(name: str, layers: str) -> Cached:
    """Each layer has 10 bytes."""
    return Cached(name, chain(layers), dict.fromkeys(layers, 10))


VERSIONS = [version("a:1", "xy"), version("b:1", "xz"), version("c:1", "w")]
USED = {"a:1": 3.0, "b:1": 1.0, "c:1": 2.0}


def test_each_layer_is_counted_once() -> None:
    assert occupied(VERSIONS) == 40


@pytest.mark.parametrize(
    ("budget", "kept", "needed", "gone"),
    [
        (40, [], [], None),
        (39, [], [], "b:1"),
        (39, ["b:1"], [], "c:1"),
        (39, ["b:1", "c:1"], [], None),
        (1, ["b:1", "c:1"], [], None),
        (39, [], ["x"], "b:1"),
        (39, [], ["xz"], "c:1"),
        (39, [], ["xz", "w"], None),
        (39, [], ["q"], "b:1"),
    ],
    ids=[
        "it fits",
        "the least recently used",
        "not what is wanted",
        "nothing that may go",
        "the one used last stays, however large",
        "a load builds on x, which another version has too",
        "a load builds on xz",
        "loads build on all",
        "a load builds on what only others have",
    ],
)
def test_what_goes_when_the_budget_is_used_up(
    budget: int, kept: list[str], needed: list[str], gone: str | None
) -> None:
    assert victim(VERSIONS, USED, budget, set(kept), [chain(text) for text in needed]) == gone


def test_a_version_that_nobody_remembers_goes_first() -> None:
    assert victim(VERSIONS, {"b:1": 1.0, "c:1": 2.0}, 1, set(), []) == "a:1"


def test_sizes_of_layers_that_nobody_knows_are_counted_together() -> None:
    assert layer_sizes("id", chain("ab"), 30, {"a": 10, "b": 20, "c": 5}) == {"a": 10, "b": 20}
    assert layer_sizes("id", chain("ab"), 35, {"a": 10}) == {"a": 10, "id": 25}
    assert layer_sizes("id", chain("ab"), 5, {"a": 10}) == {"a": 10, "id": 0}


def test_last_use_is_kept_over_a_restart(tmp_path: Path) -> None:
    record = LastUse(tmp_path / "environments.json", clock=lambda: 5.0)
    record.touch("a:1")
    record.touch("b:1")
    record.forget("b:1")
    record.save()
    assert LastUse(tmp_path / "environments.json").times == {"a:1": 5.0}
    assert [path.name for path in tmp_path.iterdir()] == ["environments.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"used": 3}', '{"used": {"a:1": "x"}}'])
def test_a_record_that_is_damaged_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "environments.json").write_text(text)
    assert LastUse(tmp_path / "environments.json").times == {}


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("hakuriver/base:1700000000", "base:1700000000"),
        ("hakuriver/base:latest", None),
        ("hakuriver/a/b:1", None),
        ("hakuriver/:1", None),
        ("debian:12", None),
        ("hakuriver-node:12", None),
        ("registry/hakuriver/base:1", None),
    ],
)
def test_which_names_are_versions_of_environments(tag: str, label: str | None) -> None:
    assert label_of(tag) == label


def told(**changes: object) -> SyncProgress:
    fields = {"name": "base", "version": 7, "state": "loading", "done": 12_300_000, "total": 20_000_000}
    return SyncProgress.model_validate(fields | changes)


def test_progress_as_people_read_it() -> None:
    assert line(told(seconds_left=3.2)) == "syncing base@7: 12.3M of 20.0M, 3 s left"
    assert line(told(seconds_left=190.0)) == "syncing base@7: 12.3M of 20.0M, 3m10s left"
    assert line(told()) == "syncing base@7: 12.3M of 20.0M"
    assert line(told(reason=HANGS)) == f"syncing base@7: {HANGS}"
    assert line(told(state="waiting")) == "syncing base@7"


def test_seconds_left_by_the_pace() -> None:
    assert seconds_left(25, 100, 10) == 30
    assert seconds_left(0, 100, 10) is None
    assert seconds_left(5, 100, 0) is None


def test_sending_and_unpacking_are_half_of_the_way_each() -> None:
    meter = Meter()
    meter.begin(100)
    assert list(meter.counted(iter([b"x" * 60, b"y" * 40]))) == [b"x" * 60, b"y" * 40]
    assert (meter.done, meter.asked) == (50, None)
    meter.unpacked = 100
    assert meter.done == 100


def test_a_share_that_gives_nothing_is_told_after_a_while() -> None:
    meter = Meter()
    assert not meter.hangs(1e9)
    meter.asked = 100.0
    assert not meter.hangs(100 + HANG_SECONDS - 1)
    assert meter.hangs(100 + HANG_SECONDS)


async def test_whoever_joins_late_is_told_how_things_are() -> None:
    sync, first, second, killed = Sync("base", 7), [], [], []  # type: ignore[var-annotated]
    sync.joined(Launch(first.append))
    gone = Launch(killed.append)
    sync.joined(gone)
    gone.cancel()
    assert first == [], "an environment that is there tells nothing"
    sync.loads(20_000_000)
    sync.joined(Launch(second.append))
    assert (first, second, killed) == (["syncing base@7: 0 of 20.0M"], ["syncing base@7: 0 of 20.0M"], [])
    sync.look()
    assert len(first) == 1, "nothing new is not told"

"""`vps … --wait`: what ends a wait for a VPS that does not come by itself to what is waited for."""

from __future__ import annotations

import pytest

from hakuriver.models.tasks import Message
from hakuriver.models.vps import VpsSummary
from hakuriver.states import TaskState
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import detail, event, made, sse_event, stream

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEsNDL0RlDjPFMxVvUFjgWzwYwWt9mQvpYnyXkq0MLLI"


def prepare(host: FakeHost, known: TaskState, *changes: TaskState) -> None:
    """A VPS in that state, which goes through others; that it is killed at last ends every wait."""
    host.on("GET", "/api/vps/11", VpsSummary(**detail(known).model_dump(), host_key="ssh-ed25519 A"))
    host.on("GET", "/api/status/11", detail(known))
    host.on("POST", "/api/submit", made(11))
    for verb in ("start", "stop", "restore"):
        host.on("POST", f"/api/vps/11/{verb}", Message(message="it is under way"))
    events = [event(number, state) for number, state in enumerate((*changes, TaskState.KILLED), start=4)]
    host.on("GET", "/api/events", lambda _: stream(*map(sse_event, events)))


@pytest.mark.parametrize(
    "words", [("create", "--public-key-string", KEY), ("start", "11"), ("restore", "11")], ids=lambda w: w[0]
)
def test_one_that_is_paused_meanwhile_is_not_waited_for(
    commands: Commands, host: FakeHost, words: tuple[str, ...]
) -> None:
    prepare(host, TaskState.PENDING, TaskState.ASSIGNING, TaskState.PAUSED)
    done = commands("vps", *words, "--wait")
    assert done.code == 5
    assert "the VPS 11 is paused" in done.err
    assert "hakuriver vps resume 11" in done.err


def test_one_that_was_paused_before_the_wait_is_not_waited_for(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.PAUSED)
    done = commands("vps", "start", "11", "--wait")
    assert (done.code, "the VPS 11 is paused" in done.err) == (5, True)


def test_a_paused_one_is_waited_for_until_it_stops(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.PAUSED, TaskState.STOPPED)
    done = commands("vps", "stop", "11")
    assert (done.code, "VPS 11 is stopped" in done.out) == (0, True)

"""One deployment from the lock to the outcome: plays it, shows it, records it, and explains what went wrong."""

from __future__ import annotations

import getpass
import json
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from hakuriver.errors import HakuRiverError
from hakuriver.version import __version__
from hakuriver_cli.deploy import display, events, history, inventory, lock
from hakuriver_cli.deploy.events import Event
from hakuriver_cli.deploy.failures import located
from hakuriver_cli.deploy.outcome import NODES, NodeOutcome, Outcome, Status, Tally, started
from hakuriver_cli.deploy.play import Play, Secret, arguments
from hakuriver_cli.deploy.port import Ansible, Job, Message
from hakuriver_cli.errors import report
from hakuriver_cli.output import Format, Printer

INTERRUPTED = 130
_UNREACHABLE = 6
_FAILED = 1
_NOT_OURS = "noop task does not support when conditional"
"""Ansible warns so of a task that it puts in by itself."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Asker = Callable[[Secret], str]


def ask(secret: Secret) -> str:
    """Reads it from the terminal without showing it, or a line of standard input when there is none."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{secret}: ")
    return sys.stdin.readline().rstrip("\n")


@dataclass(slots=True)
class Deployment:
    """Plays playbooks for one command."""

    ansible: Ansible
    project: Path
    printer: Printer
    ask: Asker = ask

    def run(self, play: Play, *, alone: bool = True) -> Outcome:
        """Plays it. `alone` takes the deployment lock, which whoever changes nothing does without."""
        controller = inventory.controller(play.inventory)
        with self._lock(controller, play, alone=alone):
            passwords = {secret.prompt: self.ask(secret) for secret in play.ask}
            outcome = _begin(play)
            with history.Record(controller, outcome) as record:
                self._play(play, passwords, outcome, record)
            history.prune(controller)
        return outcome

    def _lock(self, controller: Path, play: Play, *, alone: bool) -> AbstractContextManager[Any]:
        if not alone or play.check:
            return nullcontext()
        return lock.held(controller, play.what, self.printer.say)

    def _play(self, play: Play, passwords: dict[str, str], outcome: Outcome, record: history.Record) -> None:
        tally = Tally()
        shown = display.make(self.printer.err)
        private = Path(tempfile.mkdtemp(prefix="hakuriver-deploy-"))

        def take(message: Message) -> None:
            record.output(events.plain(message))
            if (event := events.read(message)) is not None:
                tally.take(event)
                record.event(event)
                shown.event(event)
                self._echo(play, event)

        interrupted = _Interrupted()
        try:
            with interrupted.noticed(self.ansible.stop, self.printer.say):
                end = self.ansible.play(_job(play, self.project, private, passwords), take)
        except BaseException:
            outcome.status = Status.FAILED
            record.write(outcome)
            raise
        finally:
            shown.close()
            shutil.rmtree(private, ignore_errors=True)
        result = tally.finish(end, interrupted=bool(interrupted))
        outcome.status, outcome.nodes, failures = result
        outcome.failures = [
            located(failure, partial(inventory.flaws, play.inventory)) for failure in failures
        ]
        outcome.seconds = round((datetime.now(UTC) - outcome.started).total_seconds(), 3)
        record.write(outcome)

    def _echo(self, play: Play, event: Event) -> None:
        shown = "[WARNING]" in event.text and _NOT_OURS not in event.text
        if event.kind is events.Kind.MESSAGE and (play.verbose or shown):
            self.printer.say(event.text if play.verbose else event.text.partition("\n")[0])


def finish(outcome: Outcome, printer: Printer) -> int:
    """Prints what came of it, and gives the exit code."""
    tell(outcome, printer)
    return exit_code(outcome)


def tell(outcome: Outcome, printer: Printer) -> None:
    """The nodes on stdout, and in words what failed, what to do, and where to read on."""
    if printer.form is Format.JSON:
        printer.json({**outcome.model_dump(mode="json"), "events": _recorded(Path(outcome.history))})
    elif outcome.nodes:
        printer.rows(outcome.nodes, NODES)
    for failure in outcome.failures:
        report(HakuRiverError(failure.line, failure.hint), printer.err)
    printer.say(_summary(outcome))


def exit_code(outcome: Outcome) -> int:
    if outcome.status is Status.OK:
        return 0
    if outcome.status is Status.INTERRUPTED:
        return INTERRUPTED
    only_unreachable = outcome.failures and all(failure.unreachable for failure in outcome.failures)
    return _UNREACHABLE if only_unreachable else _FAILED


def _summary(outcome: Outcome) -> str:
    done = _done(outcome)
    if outcome.status is Status.INTERRUPTED:
        return (
            f"stopped; {done}. The same command goes on from there: what is done already is left as it is\n"
            f"history: {outcome.history}"
        )
    ended = "done" if outcome.status is Status.OK else "failed"
    return f"{ended} in {outcome.seconds:.0f} s; {done}\nhistory: {outcome.history}"


def _done(outcome: Outcome) -> str:
    """What was changed. `check` plays tasks that would change something, to see whether they would."""
    changed = [_changes(node) for node in outcome.nodes if node.counts.changed]
    if "--check" in outcome.options:
        return f"would change: {', '.join(changed)}" if changed else "nothing would change"
    if not changed or outcome.what == "check":
        return "nothing was changed"
    return f"changed: {', '.join(changed)}"


def _changes(node: NodeOutcome) -> str:
    return f"{node.node} ({node.counts.changed})"


def _recorded(folder: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _begin(play: Play) -> Outcome:
    holder = lock.ourselves(play.what)
    options = arguments(play)
    return started(play, user=holder.user, machine=socket.gethostname(), version=__version__, options=options)


def _job(play: Play, project: Path, private: Path, passwords: dict[str, str]) -> Job:
    files = [
        given if isinstance(given, Path) else _written(private / f"variables-{number}.json", dict(given))
        for number, given in enumerate(play.variables)
    ]
    defaults = None
    if play.defaults:
        defaults = _written(private / "defaults.yml", {"all": {"vars": dict(play.defaults)}})
    return Job(
        project=project,
        playbook=f"playbooks/{play.playbook}.yml",
        inventory=play.inventory,
        arguments=arguments(play, files, defaults),
        private=private,
        passwords=passwords,
    )


def _written(path: Path, content: Any) -> Path:
    """JSON, which is YAML as well, for us alone."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(content), "utf-8")
    return path


class _Interrupted:
    """Whether somebody asked to stop; true after the first signal."""

    def __init__(self) -> None:
        self._times = 0

    def __bool__(self) -> bool:
        return self._times > 0

    @contextmanager
    def noticed(self, stop: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
        def on_signal(_number: int, _frame: FrameType | None) -> None:
            self._times += 1
            if self._times == 1:
                say("stopping; once more ends it at once")
            stop()

        before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

"""The one place that touches Ansible: ansible-runner as a child process, spoken to by its own streaming protocol.

`ansible-runner worker` reads one JSON line that says what to play, and answers with one JSON line for each event. So
passwords travel through a pipe, nothing of a run stays in files but what we keep ourselves, and this process never
imports Ansible. `FakeAnsible` (in `fake`) stands in for it in tests; one contract test plays both.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any, Protocol

from hakuriver.errors import HakuRiverError
from hakuriver_cli.deploy.processes import descendants, end

INSTALL = "install them with `pip install 'hakuriver-cluster[deploy]'`"
STOP_SECONDS = 15.0
"""How long Ansible may take to end by itself before it is killed."""
_PROGRAMS = ("ansible-runner", "ansible-playbook", "ansible-inventory")
_TAIL = 2000

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """What the child plays. `private` is a folder for this run alone, which the caller removes."""

    project: Path
    """The folder that holds `playbooks` and `ansible.cfg`."""
    playbook: str
    inventory: Path
    arguments: list[str]
    private: Path
    passwords: Mapping[str, str] = field(default_factory=dict)
    """By the regular expression of the prompt that asks for it."""


@dataclass(frozen=True, slots=True)
class End:
    """How the child ended; what became of the nodes is in the events."""

    status: str
    """`successful`, `failed`, `canceled`, `error`."""
    words: str = ""
    """What it said on its own error output."""


class Ansible(Protocol):
    def play(self, job: Job, on_message: Callable[[Message], None]) -> End:
        """Plays it to its end, and hands over every message as it comes."""

    def stop(self) -> None:
        """Asks what plays to end soon; a second time, ends it. Safe in a signal handler and before the start."""

    def inventory(self, arguments: list[str]) -> dict[str, Any]:
        """What `ansible-inventory` prints for these arguments."""


def check_installed() -> None:
    """Raises an error when Ansible is missing: the base installation is the client alone."""
    if missing := [name for name in _PROGRAMS if _program(name) is None]:
        raise HakuRiverError(f"Ansible is not installed: {', '.join(missing)}", INSTALL)


def request(job: Job) -> bytes:
    """The two lines that the worker reads."""
    wanted = {
        "project_dir": str(job.project),
        "playbook": job.playbook,
        "inventory": str(job.inventory),
        "cmdline": shlex.join(job.arguments),
        "passwords": dict(job.passwords),
        "ident": "run",
        "suppress_env_files": True,
        # Cancelling is looked at this often, in seconds.
        "settings": {"pexpect_timeout": 1, "suppress_output_file": True},
    }
    return f"{json.dumps({'kwargs': wanted})}\n{json.dumps({'eof': True})}\n".encode()


def worker_arguments(runner: str, private: Path, setpriv: str | None) -> list[str]:
    """The child's command line. The kernel ends it when this process is killed: nothing is played on unseen."""
    dies_with_us = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    return [*dies_with_us, runner, "worker", "--private-data-dir", str(private)]


def environment(own: Mapping[str, str], project: Path) -> dict[str, str]:
    """The child's environment: ours, without our token, and with what keeps Ansible's words steady."""
    kept = {
        name: value for name, value in own.items() if name not in {"HAKURIVER_TOKEN", "ANSIBLE_FORCE_COLOR"}
    }
    return {
        # ansible-runner would switch this off.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_CONFIG": str(project / "ansible.cfg"),
        # For a person's own ansible.cfg: of two machines with one name it would take the last.
        "ANSIBLE_DUPLICATE_YAML_DICT_KEY": "error",
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)]),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


class AnsibleRunner:
    """The real one."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._worker: subprocess.Popen[bytes] | None = None
        self._playbook_pid: int | None = None
        self._asked_to_stop = 0

    def play(self, job: Job, on_message: Callable[[Message], None]) -> End:
        errors = job.private / "errors.txt"
        status = "error"
        with errors.open("wb") as stderr:
            worker = subprocess.Popen(
                worker_arguments(_required("ansible-runner"), job.private, shutil.which("setpriv")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(os.environ, self._project),
                start_new_session=True,
            )
        self._worker = worker
        try:
            _send(worker, request(job))
            if self._asked_to_stop:
                self._ask()
            assert worker.stdout is not None  # noqa: S101  (it is a pipe)
            for line in worker.stdout:
                message = _message(line)
                if "event" in message:
                    self._playbook_pid = message.get("pid") or self._playbook_pid
                    on_message(message)
                elif "status" in message:
                    status = str(message["status"])
            worker.wait()
        finally:
            self._end_all()
        words = errors.read_text("utf-8", "replace").strip()
        return End(status, words[-_TAIL:])

    def stop(self) -> None:
        self._asked_to_stop += 1
        if self._asked_to_stop == 1:
            self._ask()
        else:
            self._end_all()

    def inventory(self, arguments: list[str]) -> dict[str, Any]:
        done = subprocess.run(
            [_required("ansible-inventory"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment(os.environ, self._project),
        )
        if done.returncode:
            raise HakuRiverError(
                f"the inventory cannot be read: {_last_line(done.stderr)}",
                "see all of it with `ansible-inventory --list -i INVENTORY`",
            )
        return dict(json.loads(done.stdout))

    def _ask(self) -> None:
        """Interrupts the playbook itself, which ends its own workers; the runner then ends as usual."""
        if self._worker is None or self._worker.poll() is not None:
            return
        if self._playbook_pid is not None:
            _signal(self._playbook_pid, signal.SIGINT)
        else:
            _signal(self._worker.pid, signal.SIGTERM)
        timer = Timer(STOP_SECONDS, self._end_all)
        timer.daemon = True
        timer.start()

    def _end_all(self) -> None:
        """Ends the child and all that it started, wherever that has moved to."""
        if self._worker is not None and self._worker.poll() is None:
            end([self._worker.pid, *descendants(self._worker.pid)])


def _send(worker: subprocess.Popen[bytes], data: bytes) -> None:
    assert worker.stdin is not None  # noqa: S101  (it is a pipe)
    try:
        worker.stdin.write(data)
        worker.stdin.close()
    except BrokenPipeError:
        worker.wait()


def _message(line: bytes) -> Message:
    """One line of the stream; what is no JSON object (the runner's archive of its own files) is nothing to us."""
    if not line.startswith(b"{"):
        return {}
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _program(name: str) -> str | None:
    """Beside our own Python first: another Ansible on PATH may be of another version."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _required(name: str) -> str:
    found = _program(name)
    if found is None:
        raise HakuRiverError(f"Ansible is not installed: {name}", INSTALL)
    return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("[ERROR]: ").removeprefix("ERROR! ") if lines else "no reason was given"

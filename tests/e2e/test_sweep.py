"""`hakurun`: real processes, no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import until

HAKURUN = Path(sys.executable).with_name("hakurun")
MEETING = """
import fcntl, os, sys, time
from pathlib import Path
number, wanted = sys.argv[1], int(sys.argv[2])
here = Path("here"); here.mkdir(exist_ok=True)
(here / number).touch()
most = 0
give_up = time.monotonic() + 60
while time.monotonic() < give_up:
    most = max(most, len(list(here.iterdir())))
    if most >= wanted or len(list(Path(".").glob("met-*"))) > 0:
        break
    time.sleep(0.01)
Path(f"met-{number}").write_text(str(most))
(here / number).unlink()
"""
"""Waits until so many run at once, and notes the most that it has seen."""


def hakurun(folder: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [HAKURUN, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_one_after_the_other_in_order(tmp_path: Path) -> None:
    done = hakurun(
        tmp_path, "sh", "-c", 'echo "$HAKURIVER_SWEEP_INDEX of $HAKURIVER_SWEEP_COUNT: $0"', "span:[a,b,c]"
    )
    assert done.stdout.splitlines() == ["0 of 3: a", "1 of 3: b", "2 of 3: c"]
    assert (done.returncode, done.stderr.splitlines()[-1].partition(" in ")[0]) == (0, "3 ok, 0 failed of 3")


def test_so_many_at_once_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "meeting.py").write_text(MEETING)
    done = hakurun(tmp_path, "--jobs", "3", "meeting", "span:{1..9}", "3")
    assert done.returncode == 0, done
    seen = [int(path.read_text()) for path in tmp_path.glob("met-*")]
    assert (len(seen), max(seen)) == (9, 3)


def test_lines_of_several_do_not_run_together(tmp_path: Path) -> None:
    text = "for i in 1 2 3; do printf 'one '; printf 'line\\n'; done; printf 'no end'; echo odd >&2"
    done = hakurun(tmp_path, "-j", "4", "-q", "sh", "-c", text, "span:{1..8}")
    expected = [f"[{run}] {line}" for run in range(1, 9) for line in ["no end", *["one line"] * 3]]
    assert sorted(done.stdout.splitlines()) == sorted(expected)
    assert sorted(done.stderr.splitlines()) == [f"[{run}] odd" for run in range(1, 9)]


def test_output_of_each_into_a_file(tmp_path: Path) -> None:
    done = hakurun(
        tmp_path, "--parallel", "--log-dir", "logs/new", "sh", "-c", "echo $0; echo $0 >&2", "span:{1..10}"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "logs/new/07.out").read_text() == "7\n"
    assert (tmp_path / "logs/new/10.err").read_text() == "10\n"


def test_failures_are_told_and_the_others_run(tmp_path: Path) -> None:
    done = hakurun(tmp_path, "sh", "-c", "exit $0", "span:[0,4,0,5]")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-3].startswith("2 ok, 2 failed of 4 in ")
    assert done.stderr.splitlines()[-2:] == [
        "  failed: run 2 (4): exit code 4",
        "  failed: run 4 (5): exit code 5",
    ]


def test_nothing_more_after_a_failure(tmp_path: Path) -> None:
    done = hakurun(tmp_path, "--fail-fast", "sh", "-c", "echo $0; exit $0", "span:[0,4,0,5]")
    assert (done.returncode, done.stdout.split()) == (4, ["0", "4"])
    assert "1 ok, 1 failed, 2 not run of 4" in done.stderr


def test_a_signal_is_128_and_its_number(tmp_path: Path) -> None:
    assert hakurun(tmp_path, "sh", "-c", "kill -9 $$").returncode == 137


def test_only_what_failed_is_run_again(tmp_path: Path) -> None:
    words = ["--resume", "record", "sh", "-c", "echo $0; test ! -e broken || test $0 != 2", "span:{1..3}"]
    (tmp_path / "broken").touch()
    assert hakurun(tmp_path, *words).returncode == 1
    with (tmp_path / "record").open("a") as record:
        record.write('{"argv": ["sh", "-c"')  # As a machine that goes down leaves it.
    (tmp_path / "broken").unlink()
    done = hakurun(tmp_path, *words)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "1 ok, 0 failed, 2 done before of 3" in done.stderr
    again = hakurun(tmp_path, *words)
    assert (again.returncode, again.stdout) == (0, "")
    codes = [
        json.loads(line)["code"]
        for line in (tmp_path / "record").read_text().splitlines()
        if line.endswith("}")
    ]
    assert codes == [0, 1, 0, 0]


def test_modules_and_functions(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "import sys\n"
        "def given(a, b): print('given', a, b); return int(a)\n"
        "def bare(): print('bare', sys.argv[1:])\n"
        "if __name__ == '__main__': print('module', sys.argv[1:])\n"
    )
    assert hakurun(tmp_path, "-q", "work", "span:[x,y]").stdout == "module ['x']\nmodule ['y']\n"
    done = hakurun(tmp_path, "-q", "work:given", "span:[0,2]", "b")
    assert (done.stdout, done.returncode) == ("given 0 b\ngiven 2 b\n", 2)
    assert hakurun(tmp_path, "-q", "work:bare", "-x").stdout == "bare ['-x']\n"
    done = hakurun(tmp_path, "-q", "work:none")
    assert (done.stderr, done.returncode) == ("error: work has no function none\nhint: check its name\n", 2)


def test_command_lines_for_a_shell(tmp_path: Path) -> None:
    done = hakurun(tmp_path, "--dry-run", "echo", "a b", "span:{1..2}", "-n")
    assert done.stdout == "echo 'a b' 1 -n\necho 'a b' 2 -n\n"
    many = subprocess.Popen([HAKURUN, "--dry-run", "echo", "span:{1..1000000}"], stdout=subprocess.PIPE)
    assert many.stdout is not None
    assert many.stdout.readline() == b"echo 1\n"
    many.stdout.close()
    assert many.wait(60) == 1, "who reads no more ends it"


def _number(path: Path) -> str:
    return until(lambda: path.read_text().strip(), "its number is written")


def _wait_end(number: str) -> None:
    until(lambda: not Path(f"/proc/{number}").exists(), "it has ended")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_it_ends_what_runs(tmp_path: Path, how: signal.Signals) -> None:
    words = ["sh", "-c", "echo $$ > pid-$0; exec sleep 600", "span:{1..5}"]
    with subprocess.Popen(
        # Who runs the tests in the background may have SIGINT ignored.
        ["env", "--default-signal=INT", HAKURUN, "-j", "2", "--resume", "record", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        pids = until(lambda: len(found := list(tmp_path.glob("pid-*"))) == 2 and found, "two run")
        numbers = [_number(path) for path in pids]
        program.send_signal(how)
        _, said = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "interrupted: 0 ok, 0 failed, 5 not run of 5" in said
    for number in numbers:
        _wait_end(number)
    assert (tmp_path / "record").read_text() == "", "what was interrupted is neither well nor ill"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no command is given"),
        (["no-such-program", "span:{1..2}"], "there is no program no-such-program"),
        (["nosuchmodule"], "nosuchmodule is neither a program nor a Python module here"),
        (["nosuchmodule:main"], "nosuchmodule:main is neither a program nor a Python module here"),
        (["echo", "span:1"], "'span:1' is not a span"),
        (["echo", "span:[]"], "span:[] has no values"),
        (["echo", "span:{1..10000000}"], "has 10,000,000 values; 1,000,000 are the most"),
        (["-j", "0", "echo"], "--jobs 0: at least one runs at a time"),
        (["-j", "x", "echo"], "-j x: must be a whole number"),
        (["--resume", "/", "echo"], "cannot use /"),
        (["--resume", "text", "echo"], "line 1 of text is not of a sweep's record"),
        (["--log-dir", "text", "echo"], "cannot make text"),
    ],
)
def test_what_is_no_sweep(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "text").write_text("hello\n")
    done = hakurun(tmp_path, *words)
    assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (2, True, 2), done.stderr


def test_what_a_run_leaves_behind_holds_up_nothing(tmp_path: Path) -> None:
    text = "sleep 600 & echo $! > left; echo said"
    began = subprocess.run(
        [HAKURUN, "-j", "2", "-q", "sh", "-c", text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    left = Path("/proc", (tmp_path / "left").read_text().strip())
    try:
        assert (began.returncode, began.stdout) == (0, "[1] said\n")
        assert left.exists(), "a run that has ended well may leave a program behind"
    finally:
        os.kill(int(left.name), signal.SIGKILL)


def test_text_of_any_kind_is_noted_and_found_again(tmp_path: Path) -> None:
    odd = ["a\u2028b", "c\x85d", os.fsdecode(b"\xff")]
    words = ["--resume", "record", "sh", "-c", "true", f"span:[{','.join(odd)}]"]
    assert hakurun(tmp_path, *words).returncode == 0
    assert "0 ok, 0 failed, 3 done before of 3" in hakurun(tmp_path, *words).stderr


def test_a_long_line_comes_in_pieces(tmp_path: Path) -> None:
    done = hakurun(tmp_path, "-j", "2", "-q", "sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x")
    assert done.stdout.replace("[1] ", "").replace("\n", "") == 200_000 * "x"


def test_who_reads_no_more_ends_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [HAKURUN, "-j", "2", "-q", "sh", "-c", "while :; do echo line; done", "span:{1..4}"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline().endswith(b"line\n")
        program.stdout.close()
        assert program.wait(60) == 1

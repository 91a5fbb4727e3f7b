"""`make simulate`: what a replay was worth, the traces that are made, and the command."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from statistics import fmean, median

import pytest

from bench.simulation import __main__ as command
from bench.simulation import lublin, swf
from bench.simulation.jobs import Job
from bench.simulation.metrics import bounded_slowdown, measure
from bench.simulation.replay import Run

ROOT = Path(__file__).resolve().parents[3]


def test_bounded_slowdown() -> None:
    assert bounded_slowdown(0, 0) == 1
    assert bounded_slowdown(90, 10) == 10
    assert bounded_slowdown(90, 1) == pytest.approx(9.1), "one second counts as ten"
    assert bounded_slowdown(5, 1) == 1, "and nothing is faster than at once"
    assert bounded_slowdown(3_600, 3_600) == 2


def test_a_replay_is_worth_what_can_be_worked_out_by_hand() -> None:
    runs = [
        Run(Job(1, 100, 100, 4, 200, 1), 0, 100),
        Run(Job(2, 110, 50, 2, 200, 1), 0, 200),
        Run(Job(3, 120, 5, 2, 200, 2), 0, 200),
    ]
    found = measure(runs, 4)
    assert (found.jobs, found.mean_wait, found.median_wait, found.wait_95) == (
        3,
        pytest.approx(170 / 3),
        80,
        90,
    )
    assert found.slowdown == pytest.approx((1 + 140 / 50 + 85 / 10) / 3)
    assert found.worst_user == 8.5
    assert found.makespan == 150
    assert found.utilization == pytest.approx((400 + 100 + 10) / (4 * 150))


def test_traces_are_the_same_each_time_and_of_the_load_that_is_asked_for() -> None:
    records = lublin.generate(3_000, 128, 128, 0.8, 1)
    assert records == lublin.generate(3_000, 128, 128, 0.8, 1)
    assert records != lublin.generate(3_000, 128, 128, 0.8, 2)
    work = sum(record.run * record.requested for record in records)
    assert work / (128 * records[-1].submit) == pytest.approx(0.8, rel=0.02)
    assert [record.submit for record in records] == sorted(record.submit for record in records)


def test_traces_look_as_the_model_says() -> None:
    records = lublin.generate(8_000, 128, 128, 0.8, 1)
    sizes = [record.requested for record in records]
    assert min(sizes) == 1
    assert max(sizes) == 128
    assert sum(size == 1 for size in sizes) / len(sizes) == pytest.approx(0.244, abs=0.03)
    assert sum(size & (size - 1) == 0 for size in sizes) / len(sizes) > 0.244 + 0.576 - 0.03
    small = median(record.run for record in records if record.requested == 1)
    assert median(record.run for record in records if record.requested >= 64) > 2 * small, "larger is longer"
    hours = Counter(int(record.submit // 3_600 % 24) for record in records)
    assert sum(hours[hour] for hour in range(10, 18)) > 2 * sum(hours[hour] for hour in range(8)), "by day"
    assert all(record.requested_time >= record.run > 0 for record in records)
    assert 0.25 < fmean(record.run / record.requested_time for record in records) < 0.45, (
        "of what is asked for"
    )
    users = Counter(record.user for record in records)
    assert users[1] > 5 * users[20] > 0


def test_the_command_shows_each_policy_and_the_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "traces"
    small = ["--jobs", "800", "--loads", "0.9", "--seeds", "1", "--write", str(folder)]
    assert command.main(small) == 0
    out = capsys.readouterr().out
    assert "one pool of 128 cores, load 0.9, seed 1: 800 jobs" in out
    assert "8 nodes of 16 cores, load 0.9, seed 1: 800 jobs" in out
    assert out.count("FIFO") == out.count("│ EASY") == out.count("│ HakuRiver") == 2
    assert "HakuRiver is at least as good as EASY on 2 of 2" in out
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["lublin-1x128-0.9-1.swf", "lublin-8x16-0.9-1.swf"]
    assert swf.read(files[1]).processors == 128
    command.main([str(files[0])])
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if "│" in line] == [
        line for line in out[: out.index("8 nodes")].splitlines() if "│" in line
    ], "what was written is what was replayed"
    command.main([str(files[0]), "--nodes", "4", "--jobs", "100"])
    assert "left out that never ran or fit no node" in capsys.readouterr().out


def test_a_trace_on_which_it_is_worse_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "HakuRiver", lambda nodes, half_life_days: command.Fifo(nodes))
    assert command.main(["--cores", "16", "--jobs", "100", "--loads", "0.9", "--seeds", "1"]) == 1
    printed = capsys.readouterr()
    assert "on 0 of 1" in printed.out
    assert "worse than EASY: one pool of 16 cores, load 0.9, seed 1" in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.swf"], "none.swf: No such file or directory"),
        (["sizeless.swf"], "sizeless.swf: its header does not say how many processors there were"),
        (["large.swf", "--cores", "2"], "large.swf: none of its 1 jobs can run on a node of 2 cores"),
        (["sized.swf", "--nodes", "3"], "sized.swf: 8 processors make no 3 equal nodes"),
        (["--nodes", "0"], "argument --nodes: '0' is not a number from 1 to 10000"),
        (["--loads", "x"], "argument --loads: 'x' is not a load from 0.01 to 10"),
        (["--loads", "nan"], "argument --loads: 'nan' is not a load from 0.01 to 10"),
        (["--half-life", "-1"], "argument --half-life: '-1' is not a number of days from 0 to 3650"),
        (["--verbose"], "unrecognized arguments: --verbose"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "1 0 -1 50 4 -1 -1 4 3600 -1 1 3 -1 -1 2 -1 -1 -1\n"
    for name, header in (("sizeless.swf", ""), ("large.swf", ""), ("sized.swf", "; MaxProcs: 8\n")):
        (tmp_path / name).write_text(header + line, "utf-8")
    assert command.main(arguments) in {2, 3}
    error = capsys.readouterr().err.splitlines()
    assert error[0] == f"error: {said}"
    assert len(error) == 2


def test_make_hands_its_words_on() -> None:
    made = subprocess.run(
        [
            "make",
            "-n",
            "--no-print-directory",
            "simulate",
            "TRACE=a.swf",
            "NODES=8",
            "CORES=4",
            "LOADS=0.7 0.9",
            "SIMULATE=--half-life 0",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = made.splitlines()[-1].split()
    assert words[1:] == (
        [
            "-m",
            "bench.simulation",
            "a.swf",
            "--nodes",
            "8",
            "--cores",
            "4",
            "--loads",
            "0.7",
            "0.9",
            "--half-life",
            "0",
        ]
    )

"""The Standard Workload Format: what is read, what is written, and what is said of what is neither."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulation.jobs import Job, jobs_of
from bench.simulation.swf import Record, Workload, read, write
from hakuriver.errors import UsageError

LINE = "7 100 -1 50.5 4 -1 -1 8 3600 -1 1 3 -1 -1 2 -1 -1 -1"
HEADER = "; Version: 2.2\n;   MaxProcs:  128 (64 nodes)\n; Note: one\n; Note: another\n;\n; no label\n\n"


def test_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "log.swf"
    path.write_text(f"{HEADER}{LINE}\n   ; Note: late\n\t{LINE.replace(' ', '   ')}  \n", "utf-8")
    workload = read(path)
    expected = Record(
        7, 100, run=50.5, allocated=4, requested=8, requested_time=3600, status=1, user=3, queue=2
    )
    assert workload.records == (expected, expected)
    assert workload.header["Note"] == "one"
    assert workload.processors == 128


def test_compressed_by_whatever_name_and_comments_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "log.swf"
    path.write_bytes(gzip.compress(b"; Acknowledge: Andr\xe9\n; MaxNodes: 8\n" + LINE.encode()))
    workload = read(path)
    assert len(workload.records) == 1
    assert workload.processors == 8


@pytest.mark.parametrize("header", [{}, {"MaxProcs": "-1"}, {"MaxProcs": "many"}, {"MaxNodes": "0"}])
def test_a_machine_of_unknown_size(header: dict[str, str]) -> None:
    assert Workload((), header).processors is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE.rpartition(" ")[0], "it has 17 fields, not 18"),
        (LINE + " 1", "it has 19 fields, not 18"),
        (LINE.replace("50.5", "long"), "run is 'long', not a number"),
        (LINE.replace("50.5", "nan"), "run is 'nan', not a number"),
        (LINE.replace("50.5", "1e999"), "run is '1e999', not a number"),
        (LINE.replace("50.5", "1_0"), "run is '1_0', not a number"),
        (LINE.replace(" 8 ", " 8.5 "), "requested is '8.5', not a whole number"),
        (LINE.replace("3600", "1h"), "requested time is '1h', not a number"),
        (LINE.replace("7 100", "7 -1"), "submit is -1, before the log begins"),
        ("\x00\x01", "it has 1 fields, not 18"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "log.swf"
    path.write_text(f"; Version: 2\n{LINE}\n{line}\n", "utf-8")
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.message == f"{path}, line 3: {said}"
    assert caught.value.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(LINE.encode() * 100)[:-12])
    wrong = tmp_path / "wrong.gz"
    wrong.write_bytes(b"\x1f\x8bnothing")
    for path in (tmp_path / "none.swf", tmp_path, cut, wrong):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert caught.value.message.startswith(f"{path}: ")
        assert "\n" not in caught.value.message


_WHOLE = st.integers(-1, 10**17)
_TIME = st.one_of(st.integers(-1, 2**53), st.floats(0, 1e300))
_FIELDS = {name: _WHOLE if kind is int else _TIME for name, kind in get_type_hints(Record).items()}


@given(st.lists(st.builds(Record, **{**_FIELDS, "submit": st.floats(0, 1e300)}), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.swf"
    write(path, records, {"MaxProcs": "16"})
    assert read(path) == Workload(tuple(records), {"MaxProcs": "16"})


def test_jobs_are_what_can_be_replayed() -> None:
    records = [
        Record(1, 50, run=10, requested=2, allocated=1, requested_time=60, user=1),
        Record(2, 20, run=10, requested=-1, allocated=4, requested_time=-1, user=2),
        Record(3, 30, run=90, requested=0, allocated=1, requested_time=60, user=3),
        Record(4, 30, run=0, requested=1, requested_time=60),
        Record(5, 40, run=-1, requested=1, status=5),
        Record(6, 40, run=10),
        Record(7, 40, run=10, requested=5),
    ]
    assert jobs_of(records, 4) == [
        Job(1, 20, 10, 4, 10, 2),
        Job(2, 30, 90, 1, 90, 3),
        Job(3, 30, 0, 1, 60, -1),
        Job(4, 50, 10, 2, 60, 1),
    ]

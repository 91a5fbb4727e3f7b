"""Whether the first process of a container heeds SIGTERM."""

from __future__ import annotations

from pathlib import Path

import pytest

from hakuriver_agent.engines.init_process import ignores_sigterm


def status(proc: Path, numbers: str, caught: str, ignored: str = "0") -> Path:
    (proc / "42").mkdir()
    (proc / "42" / "status").write_text(
        f"Name:\tsleep\nNSpid:\t{numbers}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n"
    )
    return proc


@pytest.mark.parametrize(
    ("numbers", "caught", "ignores"),
    [
        ("42\t1", "0000000000000000", True),
        ("42\t1", "0000000000004000", False),
        ("42\t1", "0000000000004002", False),
        ("42\t7", "0000000000000000", False),
        ("42", "0000000000000000", False),
    ],
)
def test_it_ignores_what_it_has_no_handler_for(
    tmp_path: Path, numbers: str, caught: str, ignores: bool
) -> None:
    assert ignores_sigterm(42, status(tmp_path, numbers, caught)) is ignores


def test_one_that_chose_to_ignore_it_gets_its_grace(tmp_path: Path) -> None:
    assert not ignores_sigterm(42, status(tmp_path, "42\t1", "0", "4000"))


def test_what_cannot_be_told_is_taken_to_heed(tmp_path: Path) -> None:
    assert not ignores_sigterm(42, tmp_path)

"""Where a command's own options end."""

from __future__ import annotations

import pytest

from hakuriver_cli.passthrough import end_options, leading_options

FLAGS = {"--wait", "--help", "-h"}
VALUED = {"--cores", "--env", "-e", "--output", "-o"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("python -c print", "-- python -c print"),
        ("--cores 2 python --cores 9", "--cores 2 -- python --cores 9"),
        ("--cores=2 --wait echo --help", "--cores=2 --wait -- echo --help"),
        ("-e A=1 -oname echo -o x", "-e A=1 -oname -- echo -o x"),
        ("--cores 2 -- echo -- x", "--cores 2 -- echo -- x"),
        ("echo -- x", "-- echo -- x"),
        ("--wait", "--wait"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_options_end_at_the_first_word_that_is_none(words: str, expected: str) -> None:
    assert end_options(words.split(), FLAGS, VALUED) == expected.split()


def test_a_single_dash_is_a_word() -> None:
    assert end_options(["-", "x"], FLAGS, VALUED) == ["--", "-", "x"]


def test_what_is_not_known_is_left_to_the_parser_to_complain_of() -> None:
    assert end_options(["--colour", "blue", "x"], FLAGS, VALUED) == ["--colour", "blue", "x"]


def test_options_before_the_commands_name() -> None:
    words = ["--config", "f", "-o=json", "task", "list", "--config", "g"]
    assert leading_options(words, {"--config", "-o"}) == (
        ["--config", "f", "-o=json"],
        ["task", "list", "--config", "g"],
    )

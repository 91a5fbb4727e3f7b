"""The four forms in which commands print."""

from __future__ import annotations

import io
import json

import pytest

from hakuriver.states import TaskState
from hakuriver_cli.cluster_views import NODES
from hakuriver_cli.output import Format, Printer, printable
from hakuriver_cli.task_views import TASK, TASKS
from unit.sdk.wire_samples import detail

LONG = detail().model_copy(update={"command": "x" * 300, "name": "n" * 30})


def printed(form: Format) -> list[str]:
    out = io.StringIO()
    Printer(form, out).rows([detail(), LONG], TASKS)
    return out.getvalue().splitlines()


def test_a_table_has_a_line_for_each_and_cuts_long_cells() -> None:
    head, first, second = printed(Format.TABLE)
    assert head.split()[:4] == ["TASK", "ID", "NAME", "STATE"]
    assert "echo 'a b'" in first
    assert "…" in second
    assert "BATCH" not in head
    assert all(line == line.rstrip() for line in (head, first, second))


def test_the_wide_form_shows_more_and_cuts_nothing() -> None:
    head, _, second = printed(Format.WIDE)
    assert "BATCH" in head
    assert "x" * 300 in second


def test_json_is_the_wire_models_own() -> None:
    found = json.loads("\n".join(printed(Format.JSON)))
    assert found == [item.model_dump(mode="json") for item in (detail(), LONG)]
    assert found[0]["task_id"] == "11"


def test_names_are_what_other_commands_take() -> None:
    assert printed(Format.NAME) == ["11", "11"]


def test_an_empty_list_is_a_head_an_empty_array_or_nothing() -> None:
    texts = {}
    for form in Format:
        out = io.StringIO()
        Printer(form, out).rows([], NODES)
        texts[form] = out.getvalue()
    assert texts[Format.TABLE].startswith("NODE")
    assert json.loads(texts[Format.JSON]) == []
    assert texts[Format.NAME] == ""


def test_a_record_has_a_line_for_each_field() -> None:
    out = io.StringIO()
    Printer(Format.TABLE, out).record(detail(TaskState.FAILED, exit_code=3), TASK)
    text = out.getvalue()
    assert "Exit code" in text
    assert "Task ID" in text
    assert "attempt 1  failed on n1" in text


def test_no_colour_and_no_escape_reaches_a_pipe() -> None:
    out = io.StringIO()
    Printer(Format.TABLE, out).rows([detail().model_copy(update={"name": "\x1b[31mred\x07"})], TASKS)
    assert "\x1b" not in out.getvalue()
    assert "\\x1b[31mred\\x07" in out.getvalue()


@pytest.mark.parametrize(("text", "shown"), [("é", "é"), ("a\tb\n", "a\tb\n"), ("\x9b2J", "\\x9b2J")])
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown

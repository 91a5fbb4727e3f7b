"""Whatever is sent or written, nobody reads pydantic's words about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from hakuriver.config import Settings
from hakuriver.errors import HakuRiverError
from hakuriver.models.access import TokenCreate, UserCreate
from hakuriver.models.runner import HeartbeatRequest, JoinRequest, RegisterRequest, UpdateRequest
from hakuriver.models.submission import SubmitRequest
from hakuriver.problems import said
from hakuriver_host.api.tasks import LogQuery, TaskQuery

MODELS: list[type[BaseModel]] = [
    SubmitRequest,
    UserCreate,
    TokenCreate,
    JoinRequest,
    RegisterRequest,
    HeartbeatRequest,
    UpdateRequest,
    TaskQuery,
    LogQuery,
]
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, "", "x", "\x00", "1", [], [1], [[]], [None], {}, {"a": 1}, [{"a": []}],
]  # fmt: skip
FOREIGN = (
    "Input",
    "input should",
    "Field required",
    "should",
    "valid ",
    "Value error",
    "permitted",
    "unable",
)


_CAUSES = "must be 'failed', 'oom', 'lost' or an exit code from 1 to 255"


def told(model: type[BaseModel], text: str) -> list[str]:
    try:
        model.model_validate_json(text)
    except HakuRiverError:
        return []
    except ValidationError as error:
        return [said(problem) for problem in error.errors(include_url=False)]
    return []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_each_field_with_each_wrong_value(model: type[BaseModel]) -> None:
    heard = set[str]()
    for name in model.model_fields:
        for value in VALUES:
            heard.update(told(model, json.dumps({name: value})))
    heard.update(told(model, '{"no_such": 1}'), told(model, "[]"), told(model, "{"), told(model, ""))
    assert len(heard) > 3
    for words in heard:
        assert not any(foreign in words for foreign in FOREIGN), words
        assert words != "is not as it must be", "each kind of problem has words of its own"


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_a_body(body: bytes) -> None:
    try:
        SubmitRequest.model_validate_json(body)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            assert "Input" not in said(problem)


@pytest.mark.parametrize("section", Settings.model_fields)
def test_settings_too(section: str) -> None:
    model: Any = Settings.model_fields[section].annotation
    for name in model.model_fields:
        for value in VALUES:
            try:
                Settings.model_validate({section: {name: value}})
            except ValidationError as error:
                for problem in error.errors(include_url=False):
                    words = said(problem)
                    assert not any(foreign in words for foreign in FOREIGN), words
                    assert words != "is not as it must be"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "is missing"),
        ({"command": ""}, "must not be empty"),
        ({"command": "x", "count": 0}, "must be at least 1"),
        ({"command": "x", "name": "x" * 200}, "must have at most 128 characters"),
        ({"command": "x", "network": "lan"}, "must be 'host', 'bridge' or 'none'"),
        ({"command": "x", "retry_on": ["boredom"]}, _CAUSES),
        ({"command": "x", "retry_on": [0]}, _CAUSES),
        ({"command": "x", "retry_on": [256]}, _CAUSES),
        ({"command": "x", "after": ["12:maybe"]}, "'12:maybe' is not ID, ID:ok, ID:any or ID:failed"),
        (
            {"command": "x", "not_before": "9999-12-31T23:59:00-05:00"},
            "must be between the years 1980 and 2200",
        ),
        ({"command": "x", "priority": 1001}, "must be at most 1000"),
        (
            {"command": "x", "not_before": "2026-01-01T00:00:00"},
            "must be a time with its offset, such as 2026-01-31T10:00:00Z",
        ),
        ({"command": "x", "colour": 1}, "is not known"),
    ],
)
def test_what_it_says(fields: dict[str, Any], words: str) -> None:
    assert told(SubmitRequest, json.dumps(fields)) == [words]

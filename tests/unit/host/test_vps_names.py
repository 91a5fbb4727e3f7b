"""Names of VPS, beside the other words that the API has under `/api/vps`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hakuriver.client import calls
from hakuriver.errors import NotFoundError, UsageError
from hakuriver.models.submission import OWN_KEYS, SubmitRequest
from hakuriver.names import VPS_NAME, check_vps_name
from hakuriver_host.api.vps import vps_endpoints
from hakuriver_host.services import submit


def words() -> set[str]:
    """What stands in a path where a VPS is named, and would be a name."""
    desk: Any = SimpleNamespace()
    places = {endpoint.path.split("/")[3] for endpoint in vps_endpoints(desk) if "/vps/" in endpoint.path}
    return {place for place in places if VPS_NAME.fullmatch(place)}


def test_no_word_of_the_api_is_a_name() -> None:
    assert words() >= {"status"}
    for word in words():
        with pytest.raises(ValueError, match=f"`{word}` cannot be the name of a VPS"):
            check_vps_name(word)
    assert check_vps_name("status-1") == "status-1"


def test_a_vps_of_such_a_name_is_refused_when_it_is_made() -> None:
    with pytest.raises(UsageError, match="`status` cannot be the name") as refused:
        submit._check(SubmitRequest(task_type="vps", command=OWN_KEYS, required_cores=0, name="status"))
    assert refused.value.hint == "choose another"
    submit._check(SubmitRequest(command="true", name="status"))


def test_one_that_has_it_already_is_found_by_its_id_alone() -> None:
    for word in words():
        with pytest.raises(NotFoundError, match=f"no VPS is found by the name `{word}`") as refused:
            calls.vps(word)
        assert "its id" in refused.value.hint
    assert calls.vps("42").path == "/api/vps/42"

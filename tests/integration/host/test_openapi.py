"""The served OpenAPI document is true: schemathesis finds no 5xx and no answer that is not documented."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hakuriver.config import Settings
from hakuriver_host.app import HostApp
from hakuriver_host.db.engine import open_database
from hakuriver_host.services.share import Share
from support.ports import free_port

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A Host on a port; its URL and state directory."""
    root = tmp_path_factory.mktemp("openapi")
    database = {}
    if request.param == "postgresql":
        database = {"url": request.getfixturevalue("postgresql_server").new_database()}
    for name in ("shared", "state"):
        (root / name).mkdir()
    values = {
        "paths": {"shared_dir": root / "shared", "state_dir": root / "state"},
        "docker": {"default_container_name": "NULL"},
        "database": database,
    }
    config = Settings.model_validate(values)
    engine = open_database(config.database_url)
    share = Share(config, engine)
    share.open()
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(HostApp(config, engine, share), host="127.0.0.1", port=port, log_config=None)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:
        while (
            not (root / "state" / "join.token").exists()
            or client.get(f"http://127.0.0.1:{port}/api/whoami").status_code != 401
        ):
            pass
    yield f"http://127.0.0.1:{port}", root / "state"
    server.should_exit = True
    thread.join()


@pytest.fixture
def schema(served: tuple[str, Path]) -> schemathesis.BaseSchema:
    url, state = served
    headers = {"Authorization": f"Bearer {(state / 'admin.token').read_text().strip()}"}
    return schemathesis.openapi.from_url(f"{url}/api/openapi.json", headers=headers)


def test_no_undocumented_answer(schema: schemathesis.BaseSchema, served: tuple[str, Path]) -> None:
    # GET /api/events never ends, so it cannot be called with whatever fits its schema; tests/e2e follows it.
    operations = [found.ok() for found in schema.exclude(path="/api/events").get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def answers_as_documented(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=_speaker(case, served), checks=CHECKS)

        answers_as_documented()


def test_the_document_is_openapi_3_1(schema: schemathesis.BaseSchema) -> None:
    assert schema.raw_schema["openapi"] == "3.1.0"
    schema.validate()


def _speaker(case: schemathesis.Case, served: tuple[str, Path]) -> dict[str, str]:
    """What a node says is said with a node's token, and what the join token may do with that."""
    url, state = served
    join = {"Authorization": f"Bearer {(state / 'join.token').read_text().strip()}"}
    if case.path == "/api/join":
        return join
    if case.path not in {"/api/register", "/api/update", "/api/heartbeat/{hostname}"}:
        return {}
    token = state / "node.token"
    if not token.exists():
        body = {"hostname": "node-1", "runner_url": "http://127.0.0.1:9"}
        token.write_text(httpx.post(f"{url}/api/join", json=body, headers=join).json()["node_token"])
    if isinstance(case.body, dict) and "hostname" in case.body:
        case.body["hostname"] = "node-1"
    if "hostname" in (case.path_parameters or {}):
        case.path_parameters["hostname"] = "node-1"
    return {"Authorization": f"Bearer {token.read_text()}"}

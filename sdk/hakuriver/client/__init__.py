"""The Python client of HakuRiver: `Client` blocks, `AsyncClient` is for asyncio; they do the same.

    with hakuriver.Client("http://host:8000", token) as client:
        made = client.submit(command="python", arguments=["train.py"], required_cores=4)
        for task_id, event in client.wait(made.task_ids).items():
            print(task_id, event.state, event.exit_code)
            print(client.stdout(task_id).decode())

Submissions carry an idempotency key and are repeated with it when a connection is lost; logs and events are pushed by
the Host and resume where they were. Failures are the errors of `hakuriver.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hakuriver.client.calls import LogPart

if TYPE_CHECKING:
    from hakuriver.client.aio import AsyncClient
    from hakuriver.client.blocking import Client

__all__ = ["AsyncClient", "Client", "LogPart"]

_HOMES = {"AsyncClient": "hakuriver.client.aio", "Client": "hakuriver.client.blocking"}


def __getattr__(name: str) -> Any:
    """Loads each client when it is first used: a program needs one of them."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

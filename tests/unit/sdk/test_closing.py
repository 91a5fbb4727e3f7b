"""What is wrong with a WebSocket arrives whole, as the error that it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hakuriver.closing import close, error_said, error_told, refuse
from hakuriver.errors import (
    ConflictError,
    DeniedError,
    HakuRiverError,
    ImpossibleError,
    NotFoundError,
    UnreachableError,
)


class Socket:
    """Keeps what is sent, and how it is closed; `gone` is one whose other end is."""

    def __init__(self, *, gone: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self.code, self.reason = 0, ""
        self._gone = gone

    async def send_text(self, data: str) -> None:
        if self._gone:
            raise RuntimeError("it is closed")
        self.sent.append(json.loads(data))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        if self._gone:
            raise RuntimeError("it is closed")
        self.code, self.reason = code, reason or ""


@pytest.mark.parametrize(
    "kind", [ConflictError, DeniedError, ImpossibleError, NotFoundError, UnreachableError]
)
async def test_an_error_is_said_whole(kind: type[HakuRiverError]) -> None:
    socket, error = Socket(), kind("w" * 300, "h" * 300)
    await refuse(socket, error)
    (message,) = socket.sent
    said = error_said(message)
    assert type(said) is kind
    assert (said.message, said.hint) == (error.message, error.hint)


async def test_the_reason_alone_tells_the_kind_and_as_much_as_it_holds() -> None:
    socket = Socket()
    await refuse(socket, NotFoundError("there is no täsk 1", "list them"))
    told = error_told(socket.code, socket.reason)
    assert type(told) is NotFoundError
    assert (told.message, told.hint) == ("there is no täsk 1", "list them")
    await refuse(socket, NotFoundError("ä" * 100, ""))
    assert socket.reason == "ä" * 60


async def test_a_good_end_is_no_error() -> None:
    socket = Socket()
    await close(socket, 1000)
    assert error_told(socket.code, socket.reason) is None
    assert error_said({"type": "exit", "code": 0}) is None


async def test_the_other_end_may_be_gone() -> None:
    await refuse(Socket(gone=True), ConflictError("a", "b"))
    await close(Socket(gone=True), 1000)

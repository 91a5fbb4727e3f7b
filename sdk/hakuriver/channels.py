"""What the gateway and the SSH servers of VPS have in common: logins by key, and the bytes of a channel.

`KeyLogin` is for what asyncssh calls a server, `ChannelBytes` for what it calls a session: base classes to put before
asyncssh's own, so that the client, which has no SSH of its own, need not install it.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from hakuriver.exchange import GoneError
from hakuriver.gathering import Gathering

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""What is offered: no chacha20-poly1305, which many clients prefer and which costs asyncssh twice as much. Clients that
have it have one of these too: AES-CTR is what RFC 4344 recommends.
"""
_HELD = 1 << 20
"""Bytes that may wait here before the peer is held up."""
_PACKET = 1 << 15
"""Bytes that OpenSSH takes in one packet."""


class KeyLogin(ABC):
    """A server where one logs in with a public key, and in no other way."""

    @abstractmethod
    def opens(self, key: str) -> bool:
        """Whether a public key, as `authorized_keys` has it and without comment, may log in."""

    def begin_auth(self, username: str) -> bool:
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: Any) -> bool:
        """Whoever holds a key is who it says: the name that a client gives says nothing."""
        del username
        return self.opens(" ".join(key.export_public_key().decode().split()[:2]))


class ChannelBytes:
    """What came over one channel, and what goes out over it."""

    def __init__(self) -> None:
        self.channel: Any = None
        self._incoming = Gathering()
        self._held = 0
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = asyncio.Event()
        """The channel is closed, or its connection is."""

    def connection_made(self, channel: Any) -> None:
        self.channel = channel

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.lost.set()
        self._writable.set()
        self._incoming.end()

    def session_started(self) -> None:
        """Nothing more has to be done."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        del datatype
        self._held += len(data)
        self._incoming.add(data)
        if self._held > _HELD and not self._paused:
            self._paused = True
            self.channel.pause_reading()

    def eof_received(self) -> bool:
        """True: the way out stays open."""
        self._incoming.end()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def incoming(self) -> AsyncIterator[bytes]:
        """What the peer sends, until it has said all or is gone."""
        async for data in self._incoming:
            yield data
            self._held -= len(data)
            if self._paused and self._held <= _HELD // 2 and not self.lost.is_set():
                self._paused = False
                self.channel.resume_reading()

    async def write(self, data: bytes, datatype: int | None = None) -> None:
        """Sends; waits while the peer takes nothing.

        Raises:
            GoneError: the channel is closed.
        """
        # By packets: of more at once asyncssh copies what is left at each.
        for start in range(0, len(data), _PACKET):
            await self._writable.wait()
            if self.lost.is_set() or self.channel is None:
                raise GoneError
            try:
                self.channel.write(data[start : start + _PACKET], datatype)
            except OSError:
                raise GoneError from None  # It is being closed.
        # What a peer with a large window does not take waits below the channel, of which asyncssh does not tell.
        if (link := self.channel.get_extra_info("link")) is not None:
            await link.drained()

    def write_eof(self) -> None:
        if not self.lost.is_set() and self.channel is not None:
            with contextlib.suppress(OSError):
                self.channel.write_eof()

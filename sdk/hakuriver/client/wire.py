"""What both clients do around a request: headers, TLS, versions, and turning every failure into one of our errors."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from hakuriver import errors
from hakuriver.client.calls import Call
from hakuriver.client.sse import SseParser
from hakuriver.config import Settings, config_path
from hakuriver.version import VERSION_HEADER, __version__, compatible

TOKEN_VARIABLE = "HAKURIVER_TOKEN"  # noqa: S105  (a name, no secret)
SILENCE_SECONDS = 45.0
"""A stream that brings nothing for so long is lost: the Host sends a comment every 15 seconds."""

LOST = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError, httpx.ReadTimeout)
"""The connection broke after it stood: the Host may or may not have done what it was asked."""
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0
_MOST_HANG_UPS = 7
"""In a row, by what has never answered: some three seconds."""
_GATEWAY = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Address:
    """Where the Host is, who asks, and how long to wait for it."""

    url: str
    token: str | None = None
    ca_file: Path | None = None
    timeout: float = 30.0
    patience: float = 60.0

    @property
    def web_socket_url(self) -> str:
        """`ws:` for `http:`, `wss:` for `https:`."""
        return f"ws{self.url.removeprefix('http')}"

    def options(self) -> dict[str, Any]:
        """Arguments of httpx's clients. Proxies and tokens of the environment are not for a cluster's own Host."""
        headers = {VERSION_HEADER: __version__, "User-Agent": f"hakuriver/{__version__}"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return {
            "base_url": self.url,
            "headers": headers,
            "verify": tls_context(self.url, self.ca_file),
            "timeout": httpx.Timeout(self.timeout),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=32),
            "trust_env": False,
        }


def address(
    url: str,
    token: str | None = None,
    *,
    ca_file: Path | str | None = None,
    timeout: float = 30.0,
    patience: float = 60.0,
) -> Address:
    """Checks what a person gave.

    Raises:
        UsageError: the URL is not one of a Host.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise errors.UsageError(f"{url!r} is not a URL of a Host", "write http://ADDRESS:PORT or https://…")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise errors.UsageError("the token holds characters that no token has", "copy it again")
    return Address(url.rstrip("/"), token, Path(ca_file) if ca_file else None, timeout, patience)


def address_of(settings: Settings, config_file: Path | None = None) -> Address:
    """The Host of the settings, with the token that `find_token` finds."""
    return address(
        settings.host_url,
        find_token(settings, config_file),
        ca_file=settings.tls.ca_file,
        timeout=settings.client.timeout,
    )


def find_token(settings: Settings, config_file: Path | None = None) -> str | None:
    """`HAKURIVER_TOKEN`, else `client.token_file`, else `token` beside the configuration, else, on the Host's own
    machine and for its own user, the administrator's token that the Host wrote. None when there is none.

    Raises:
        UsageError: `client.token_file` is named and cannot be read.
    """
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    named = settings.client.token_file
    if named is not None:
        return _read_named(named.expanduser())
    for path in (config_path(config_file).parent / "token", settings.paths.state_dir / "admin.token"):
        try:
            if token := path.expanduser().read_text("utf-8").strip():
                return token
        except (OSError, UnicodeDecodeError):
            continue
    return None


def _read_named(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise errors.UsageError(
            f"cannot read the token in {path}: {reason}", "check client.token_file, or set HAKURIVER_TOKEN"
        ) from None


def tls_context(url: str, ca_file: Path | None) -> ssl.SSLContext:
    """Trusts `ca_file` alone when it is given, else what the system trusts; for plain HTTP, nothing."""
    if ca_file is None and not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise errors.UsageError(
            f"cannot use the certificates in {ca_file}: {error}", "check tls.ca_file; it is PEM text"
        ) from None


def request_arguments(call: Call[Any], timeout: float, content: Any = None) -> dict[str, Any]:
    """What httpx needs to send a call; `content` is a body of bytes that are sent as they come.

    `timeout`, in seconds, limits each of its steps, and of a long one the connecting alone.
    """
    headers = dict(call.headers)
    if content is not None:
        headers["Content-Type"] = "application/octet-stream"
    elif call.body is not None:
        headers["Content-Type"] = "application/json"
    limits = {"read": None, "write": None} if call.long else {}
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params,
        "content": call.body if content is None else content,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, **limits),
    }


def stream_arguments(call: Call[Any], timeout: float) -> dict[str, Any]:
    return {**request_arguments(call, timeout), "timeout": httpx.Timeout(timeout, read=SILENCE_SECONDS)}


def check(response: httpx.Response, url: str) -> None:
    """Raises the error that the response carries. The body of an unsuccessful response must have been read."""
    theirs = response.headers.get(VERSION_HEADER)
    if theirs is not None and not compatible(__version__, theirs):
        raise errors.VersionError(
            f"the Host at {url} has version {theirs}, which version {__version__} cannot talk to",
            "install the same version on both; minor versions may differ by one",
        )
    if not response.is_success:
        raise _error_of(response, url)


def _error_of(response: httpx.Response, url: str) -> errors.HakuRiverError:
    from hakuriver.models.errors import ErrorBody  # noqa: PLC0415  (errors are rare)

    try:
        return errors.from_body(ErrorBody.model_validate_json(response.content))
    except ValidationError:
        pass
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code in _GATEWAY:
        return errors.UnreachableError(
            f"something at {url} answers for the Host with {status}",
            "see whether the Host behind it runs",
        )
    return errors.InternalError(
        f"{url} answers {status}, and not in the Host's words", "see that the URL is a HakuRiver Host's"
    )


def unreachable(error: httpx.TransportError, url: str, timeout: float) -> errors.UnreachableError:
    """Says which way the Host was not reached, and what to look at."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        return errors.UnreachableError(
            f"what listens at {url} does not speak TLS",
            "if it is a Host without TLS, write http:// in client.url",
        )
    if isinstance(cause, ssl.SSLError):
        return errors.UnreachableError(
            f"cannot trust the Host at {url}: {_words(cause)}",
            "set tls.ca_file to the certificates that it is signed by, and use the name that they are for",
        )
    if isinstance(cause, socket.gaierror):
        return errors.UnreachableError(
            f"no address is known for the Host's name in {url}",
            "check client.url or network.host_reachable_address",
        )
    if isinstance(error, httpx.TimeoutException):
        return errors.UnreachableError(
            f"the Host at {url} did not answer within {timeout:g} s",
            "see whether the Host runs and nothing blocks the way; client.timeout sets how long to wait",
        )
    if isinstance(error, LOST):
        return errors.UnreachableError(
            f"the connection to the Host at {url} was lost ({_words(error)})",
            "see whether the Host still runs: `hakuriver status`; if it serves TLS, write https:// in client.url",
        )
    return errors.UnreachableError(
        f"no Host answers at {url} ({_words(cause)})",
        "start one with `hakuriver up` or `hakuriver host`, or set client.url to where it runs",
    )


def _root(error: BaseException) -> BaseException:
    """The innermost cause that the operating system or TLS gave."""
    cause, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, OSError):
            cause = inner
        inner = inner.__cause__ or inner.__context__
    return cause


def _words(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError) and error.errno is not None:
        return os.strerror(error.errno)  # asyncio's own words show the arguments of its call
    reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).splitlines()[0] if str(reason).strip() else type(error).__name__


class Retries:
    """When to try again: only after a connection has once stood, and for no longer than `patience` seconds on end.

    `stood`: the Host has answered before, so that one which cannot be reached now is being restarted. What never answered and
    hangs up time after time is not being restarted: it does not speak HTTP, as a port that wants TLS.
    """

    def __init__(
        self, patience: float, clock: Callable[[], float], *, repeatable: bool = True, stood: bool = False
    ) -> None:
        self._patience = patience if repeatable else 0.0
        self._clock = clock
        self._stood = self._answered = stood
        self._hung_up = 0
        self._end: float | None = None
        self._delay = _FIRST_DELAY

    def connected(self) -> None:
        self._stood, self._end, self._delay = True, None, _FIRST_DELAY
        self._answered = True

    def pause_after(self, error: httpx.TransportError) -> float | None:
        """Seconds to wait before the next try, doubling up to two; none when it is time to give up."""
        self._stood = self._stood or isinstance(error, LOST)
        self._hung_up = self._hung_up + 1 if isinstance(error, LOST) else 0
        if not self._answered and self._hung_up >= _MOST_HANG_UPS:
            return None
        now = self._clock()
        self._end = now + self._patience if self._end is None else self._end
        if not self._stood or now >= self._end:
            return None
        delay, self._delay = self._delay, min(self._delay * 2, _LONGEST_DELAY)
        return delay


def parser_of(response: httpx.Response, url: str) -> SseParser:
    """A parser for the response's events, if that is what it brings."""
    kind = response.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        raise errors.InternalError(
            f"{url} answers {kind or 'nothing'} where events were asked for",
            "see that the URL is a HakuRiver Host's and that no proxy changes its answers",
        )
    return SseParser()

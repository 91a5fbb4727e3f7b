"""The one door to the Docker SDK: a client made when it is needed, and its many errors as few of ours.

The SDK is imported on first use: it takes 7 MB, which a node without Docker keeps.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from hakuriver.errors import ConflictError
from hakuriver.threads import in_thread
from hakuriver_agent.engines.port import EngineUnavailableError

CALL_SECONDS = 60.0
LATE_EVENT_SECONDS = 2
DEFAULT_URL = "unix:///var/run/docker.sock"

T = TypeVar("T")


_NEEDLESS = ("is not running", "paused", "cannot resume a stopped", "cannot resume a running")
"""Words of refusals. The last two are about a paused container that was sent a signal, and that the engine continued by
itself meanwhile, or that has ended and the engine has not noted it yet.
"""


class ContainerGoneError(Exception):
    """The engine does not have the container."""


class DockerDoor:
    """One engine. Methods block, except `call`; they may be called in every thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connected: Any = None
        """The SDK's client; untyped, as most of its methods are."""
        self._connecting = threading.Lock()

    async def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread.

        Raises:
            EngineUnavailableError: the engine does not answer, or has lost the container.
        """
        try:
            with translated():
                return await in_thread(function, name="docker")
        except ContainerGoneError as error:
            raise EngineUnavailableError(f"the Docker engine lost the container: {error}") from None

    def connect(self, timeout: float | None) -> Any:
        from docker.api.client import APIClient  # noqa: PLC0415 - costs memory where there is no Docker
        from docker.utils import kwargs_from_env  # noqa: PLC0415

        options: dict[str, Any] = {**kwargs_from_env()}
        options.setdefault("base_url", DEFAULT_URL)
        if self._url:
            options["base_url"] = self._url
        make: Any = APIClient
        return make(**options, version="auto", timeout=timeout, max_pool_size=64)

    def client(self) -> Any:
        with self._connecting:
            if self._connected is None:
                self._connected = self.connect(CALL_SECONDS)
            return self._connected

    def ping(self) -> str | None:
        url = self._url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
        if url.startswith("unix://") and not Path(url.removeprefix("unix://")).exists():
            return "there is no Docker engine on this machine: its socket is missing"
        from docker.errors import DockerException  # noqa: PLC0415 - see `connect`
        from requests.exceptions import RequestException  # noqa: PLC0415

        try:
            self.client().ping()
        except (DockerException, RequestException) as error:
            text = str(error)
            if "PermissionError" in text:
                return "the Runner's user may not use the Docker engine (group docker)"
            return f"the Docker engine does not answer: {text.splitlines()[0][:200]}"
        return None

    def inspect(self, name: str) -> dict[str, Any] | None:
        from docker.errors import NotFound  # noqa: PLC0415 - see `connect`

        try:
            info: dict[str, Any] = self.client().inspect_container(name)
        except NotFound:
            return None
        return info

    def stats(self, name: str) -> dict[str, Any]:
        """What the engine tells of a container's use now; it takes a second look at nothing."""
        told: dict[str, Any] = self.client().stats(name, stream=False, one_shot=True)
        return told

    def told_of_memory(self, container: str, started: datetime, ended: datetime) -> bool:
        """Whether the engine has an event for a container's want of memory, or gets one soon after its end.

        The times are the engine's own. It keeps its last 256 events.
        """
        events = self.client().events(
            since=int(started.timestamp()),
            until=int(ended.timestamp()) + LATE_EVENT_SECONDS,
            filters={"type": ["container"], "event": ["oom"], "container": [container]},
            decode=True,
        )
        with contextlib.closing(events):
            return next(iter(events), None) is not None

    def quietly(self, call: Callable[..., Any], *arguments: str) -> None:
        """What a container that has ended, or is so already, refuses is no error."""
        from docker.errors import APIError  # noqa: PLC0415 - see `connect`

        try:
            call(*arguments)
        except APIError as error:
            text = str(error.explanation or error)
            if error.status_code not in {404, 409} and not any(words in text for words in _NEEDLESS):
                raise


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what the SDK raises when the engine is away into `EngineUnavailableError`."""
    from docker.errors import APIError, DockerException, NotFound  # noqa: PLC0415 - see `connect`
    from requests.exceptions import RequestException  # noqa: PLC0415

    try:
        yield
    except NotFound as error:
        raise ContainerGoneError(str(error.explanation)) from None
    except APIError as error:
        raise EngineUnavailableError(str(error.explanation or error)) from None
    except (RequestException, DockerException) as error:
        raise EngineUnavailableError(str(error)) from None


@contextlib.contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turns what the SDK raises for a person who is in the container into errors that they can read."""
    from docker.errors import APIError, DockerException  # noqa: PLC0415 - see `connect`
    from requests.exceptions import RequestException  # noqa: PLC0415

    try:
        yield
    except APIError as error:
        text = str(error.explanation or error).strip().splitlines()[0]
        raise ConflictError(f"{what}: {text}", "see `hakuriver task status`") from None
    except (RequestException, DockerException):
        raise ConflictError(f"{what}: the node's engine does not answer", "try again later") from None

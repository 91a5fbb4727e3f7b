"""Whether a Docker engine answers on this machine, asked without Docker's library."""

from __future__ import annotations

import os

import httpx

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_SECONDS = 5.0


def docker_problem(configured: str = "") -> str | None:
    """None when the engine answers, else why it does not, in a line."""
    address = configured or os.environ.get("DOCKER_HOST", "") or DEFAULT_SOCKET
    scheme, _, place = address.partition("://")
    try:
        if scheme == "unix":
            transport = httpx.HTTPTransport(uds=place)
            with httpx.Client(transport=transport, timeout=_SECONDS) as http:
                answer = http.get("http://docker/_ping")
        elif scheme in {"tcp", "http"}:
            answer = httpx.get(f"http://{place}/_ping", timeout=_SECONDS, trust_env=False)
        else:
            return f"{address} cannot be asked from here"
    except (httpx.HTTPError, OSError) as error:
        return f"no Docker engine answers at {address} ({error})"
    return None if answer.is_success else f"the Docker engine at {address} answers {answer.status_code}"

"""What our playbooks decide about certificates: for which names, and whether a new one is due. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# As `openssl x509 -enddate` prints it: `Jan  2 03:04:05 2027 GMT`.
_DATE = "%b %d %H:%M:%S %Y %Z"


def subject_names(candidates: Iterable[Any]) -> list[str]:
    """Names and addresses as openssl takes them (`DNS:…`, `IP:…`), each once, in the order given.

    What is neither, such as an empty string, is left out.
    """
    found = []
    for candidate in candidates:
        text = str(candidate or "").strip().strip("[]")
        if address := _address(text):
            found.append(f"IP:{address}")
        elif _NAME.fullmatch(text):
            found.append(f"DNS:{text.lower()}")
    return list(dict.fromkeys(found))


def served_names(text: str) -> list[str]:
    """The names in what `openssl x509 -ext subjectAltName` prints, in the same form."""
    names = []
    for part in re.split(r"[,\n]", text):
        kind, _, value = part.strip().partition(":")
        if kind == "DNS":
            names.append(f"DNS:{value.lower()}")
        elif kind == "IP Address" and (address := _address(value)):
            names.append(f"IP:{address}")
    return names


def days_left(text: str, now: str) -> float:
    """Days until the `notAfter=` that openssl printed; -1 where there is none. `now` is ISO 8601 in UTC."""
    found = re.search(r"notAfter=(.*)", text)
    if not found:
        return -1.0
    end = datetime.strptime(found[1].strip(), _DATE).replace(tzinfo=UTC)
    start = datetime.fromisoformat(now)
    return (end - start).total_seconds() / 86400


def why_due(
    printed: str, wanted: Iterable[str], now: str, renew_before_days: float, *, trusted: bool, key_fits: bool
) -> str:
    """Why a certificate has to be made, in a few words; empty when the present one serves.

    `printed` is what openssl tells of the present one (end and names), empty where there is none.
    """
    if not printed.strip():
        return "there is none"
    if not key_fits:
        return "it does not belong to the key"
    if not trusted:
        return "it is not by this CA"
    if set(served_names(printed)) != set(wanted):
        return "its names have changed"
    left = days_left(printed, now)
    if left < renew_before_days:
        return f"it ends in {max(left, 0):.0f} days"
    return ""


def kinds_due(
    lines: Iterable[str], kinds: Iterable[str], wanted: Iterable[str], now: str, renew_before_days: float
) -> list[str]:
    """The kinds (`host`, `runner`) whose certificate has to be made.

    `lines` are what was told of all: after `= KIND` what openssl printed, `trusted` where it is by the CA, and `fits`
    where it belongs to the key.
    """
    parts: dict[str, list[str]] = {kind: [] for kind in kinds}
    kind = ""
    for line in lines:
        if line.startswith("= "):
            kind = line.removeprefix("= ")
        elif kind in parts:
            parts[kind].append(line)
    names = list(wanted)
    return [
        kind
        for kind, own in parts.items()
        if why_due(
            "\n".join(own), names, now, renew_before_days, trusted="trusted" in own, key_fits="fits" in own
        )
    ]


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return ""


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hakuriver_subject_names": subject_names,
            "hakuriver_days_left": days_left,
            "hakuriver_certificates_due": kinds_due,
        }

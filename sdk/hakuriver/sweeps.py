"""Sweeps: command lines in which spans stand for many values, and the runs that they make.

A span stands alone or inside an argument:

- `span:{1..10}` whole numbers, both ends included; `span:{10..1}` downwards, `span:{01..10}` with zeros in front;
- `span:{0..1..0.25}` with a step, which may be a decimal fraction;
- `span:[adam,sgd]` the values of a list.

Spans are combined, each value with each; the last one changes fastest. Spans of one name, as `span.pair:[1,2]` and
`span.pair:[a,b]`, go together instead: their first values, their second values, and so on.

Nothing is held but the spans: the arguments of a run are computed from its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import prod
from typing import overload

from hakuriver.errors import UsageError

MOST_VALUES = 1_000_000
"""Of one span; what has more is a slip of the pen."""
MOST_RUNS = 100_000_000
_MOST_DIGITS = 30
_TOLD = 10**18

_SPAN = re.compile(r"\bspan(?:\.(?P<name>[A-Za-z_][A-Za-z0-9_]*))?:(?P<body>\{[^{}]*\}|\[[^\[\]]*\])")
_LOOKS_LIKE = re.compile(r"\bspan(?:\.\w*)?:")
_HINT = (
    "write 'span:{1..10}', 'span:{0..1..0.1}' or 'span:[a,b]', in quotes: the shell changes them otherwise"
)


class Steps(Sequence[str]):
    """The numbers from one end to the other, written like the ends."""

    def __init__(self, first: Decimal, step: Decimal, count: int, decimals: int, width: int) -> None:
        self._first, self._step, self._count = first, step, count
        self._decimals, self._width = decimals, width

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        value = self._first + self._step * (index % self._count)
        sign = "-" if value < 0 else ""
        return sign + f"{abs(value):.{self._decimals}f}".zfill(self._width - len(sign))


@dataclass(frozen=True, slots=True)
class Span:
    """One span."""

    name: str | None
    """Spans of one name go together."""
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep."""

    index: int
    """From 0."""
    arguments: tuple[str, ...]
    values: tuple[str, ...]
    """Those of its spans, in their order on the command line."""


class Sweep:
    """All runs of one command line.

    Raises:
        UsageError: a span is malformed, is empty, or has too many values; spans of one name differ in length.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._parts = [_parts(argument) for argument in arguments]
        spans = [part for parts in self._parts for part in parts if isinstance(part, Span)]
        self._lengths: dict[str | int, int] = {}
        """By the name of spans that go together, or the place of one that stands for itself; the last changes fastest."""
        for place, span in enumerate(spans):
            known = self._lengths.setdefault(place if span.name is None else span.name, len(span.values))
            if known != len(span.values):
                raise UsageError(
                    f"the spans named {span.name} go together, and have {known} and {len(span.values)} values",
                    "give them equally many, or no common name",
                )
        self._number = prod(self._lengths.values())
        if self._number > MOST_RUNS:
            # A number of thousands of digits could not be told.
            said = f"{self._number:,}" if self._number <= _TOLD else f"more than {_TOLD:,}"
            raise UsageError(f"that makes {said} runs; {MOST_RUNS:,} are the most", "use fewer values")

    def __len__(self) -> int:
        return self._number

    @property
    def spans(self) -> int:
        """How many there are."""
        return sum(isinstance(part, Span) for parts in self._parts for part in parts)

    @property
    def longest(self) -> tuple[str, ...]:
        """Each argument as long as it becomes in any run, though not all in the same."""
        return tuple("".join(map(_longest, parts)) for parts in self._parts)

    def __getitem__(self, index: int) -> Run:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chosen: dict[str | int, int] = {}
        rest = index
        for key, length in reversed(self._lengths.items()):
            rest, chosen[key] = divmod(rest, length)
        arguments, values = list[str](), list[str]()
        for parts in self._parts:
            texts = []
            for part in parts:
                if isinstance(part, Span):
                    values.append(part.values[chosen[len(values) if part.name is None else part.name]])
                    texts.append(values[-1])
                else:
                    texts.append(part)
            arguments.append("".join(texts))
        return Run(index, tuple(arguments), tuple(values))

    def __iter__(self) -> Iterator[Run]:
        return (self[index] for index in range(len(self)))


def _parts(argument: str) -> list[str | Span]:
    """The argument cut into what stands as it is, and spans."""
    parts: list[str | Span] = []
    place = 0
    for match in _SPAN.finditer(argument):
        parts += [_plain(argument[place : match.start()], argument), _span(match)]
        place = match.end()
    return [*parts, _plain(argument[place:], argument)]


def _longest(part: str | Span) -> str:
    """Numbers are longest at one of their ends."""
    if isinstance(part, str):
        return part
    values = part.values
    return max((values[0], values[-1]) if isinstance(values, Steps) else values, key=len)


def _plain(text: str, argument: str) -> str:
    if _LOOKS_LIKE.search(text):
        raise UsageError(f"{argument!r} is not a span", _HINT)
    return text


def _span(match: re.Match[str]) -> Span:
    text, body = match.group(), match["body"][1:-1]
    values: Sequence[str] = _list(text, body) if match["body"][0] == "[" else _range(text, body)
    return Span(match["name"], values)


def _list(text: str, body: str) -> list[str]:
    if not body.strip():
        raise UsageError(f"{text} has no values", _HINT)
    return [value.strip() for value in body.split(",")]


def _range(text: str, body: str) -> Steps:
    try:
        ends = [Decimal(part) for part in body.split("..")]
        if not all(end.is_finite() and abs(end.adjusted()) <= _MOST_DIGITS for end in ends):
            raise InvalidOperation  # noqa: TRY301 - as what is no number at all
        first, last, *steps = ends
    except (InvalidOperation, ValueError):
        raise UsageError(f"{text} is not a span of numbers", _HINT) from None
    step = abs(steps[0]) if steps else Decimal(1)
    if len(steps) > 1 or step == 0:
        raise UsageError(f"{text} is not a span: its step is not one number above 0", _HINT)
    count = int(abs(last - first) / step) + 1
    if count > MOST_VALUES:
        raise UsageError(f"{text} has {count:,} values; {MOST_VALUES:,} are the most", "use a larger step")
    words = [part.strip() for part in body.split("..")]
    decimals = max(max(0, -int(number.as_tuple().exponent)) for number in (first, step))
    padded = any(re.match(r"-?0\d", word) for word in words[:2])
    width = max(map(len, words[:2])) if padded else 0
    return Steps(first, step if last >= first else -step, count, decimals, width)

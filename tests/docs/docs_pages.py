"""Reads the pages of the documentation: their code blocks, and what they name.

How examples are written:

- A `console` block is a session: lines after `$ ` are run in bash, one after the other, in one shell for the whole page;
  the lines after each are what it prints, both streams together. `…` stands for anything inside a line, and a line
  of `…` alone for any lines. Ids, times, digests, tokens and ports need not agree, nor does the width of blanks.
- A `sh` block is a script: it is run, and must end with 0. What it prints does not matter.
- A `python` block is a program; what it prints is in the `text` block after it, when `<!-- prints -->` stands between.
- A `toml` block is a configuration that loads.
- `<!-- not run: REASON -->` on the line before a block keeps it from being run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\w*)$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PRINTS = "<!-- prints -->"


@dataclass(frozen=True)
class Block:
    """One fenced block; `before` is the last line above it that is not empty."""

    page: Path
    line: int
    language: str
    text: str
    before: str

    @property
    def not_run(self) -> str | None:
        """Why it is not run, if so."""
        found = _NOT_RUN.match(self.before)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All pages, the quick start first: it shows a cluster that nobody has used yet."""
    return sorted(DOCS.rglob("*.md"), key=lambda path: (path.stem != "quick-start", path))


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text("utf-8").splitlines()
    before, index = "", 0
    while index < len(lines):
        opened = _FENCE.match(lines[index])
        if opened is None:
            before = lines[index].strip() or before
            index += 1
            continue
        end = lines.index("```", index + 1)
        yield Block(page, index + 1, opened[1], "\n".join(lines[index + 1 : end]), before)
        before, index = "```", end + 1


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    return _INLINE.findall(prose(page))


def command_lines(page: Path) -> Iterator[str]:
    """Every line with a command of ours, in blocks and in the text."""
    for block in blocks(page):
        for line in block.text.replace("\\\n", " ").splitlines():
            if block.language == "console" and line.startswith("$ "):
                yield line[2:]
            elif block.language == "sh":
                yield line
    yield from inline_code(page)

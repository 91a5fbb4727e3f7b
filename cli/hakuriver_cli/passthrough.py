"""Where a command's own options end: at the first word that is none, as with `docker run` and `ssh`.

`hakuriver task run --cores 2 python -c 'print(1)'` leaves `-c` to Python. The argument parser would look for its options
among all words, so `--` is put before the first one that is no option, unless it is there already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def end_options(words: Sequence[str], flags: Collection[str], valued: Collection[str]) -> list[str]:
    """The words with `--` before the first that is not an option of `flags` or `valued` (which take a word)."""
    index = 0
    while index < len(words):
        word = words[index]
        if not word.startswith("-") or word == "-":
            return [*words[:index], "--", *words[index:]]
        if word == "--" or not _known(word, flags, valued):
            return list(words)
        index += 2 if word in valued else 1
    return list(words)


def _known(word: str, flags: Collection[str], valued: Collection[str]) -> bool:
    name = word.partition("=")[0]
    attached = not word.startswith("--") and word[:2] in valued
    return name in flags or name in valued or attached


def leading_options(words: Sequence[str], valued: Collection[str]) -> tuple[list[str], list[str]]:
    """Splits off options that stand before the command's name: `hakuriver --config FILE task list`."""
    index = 0
    while index < len(words) and words[index].partition("=")[0] in valued:
        index += 1 if "=" in words[index] else 2
    return list(words[:index]), list(words[index:])

"""What a deployment says when something is wrong is on the troubleshooting pages, and what they quote is said."""

from __future__ import annotations

import ast
import re

import docs_messages
from docs_pages import DOCS, ROOT

PAGE = DOCS / "troubleshooting/deployment.md"
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_HEADS = {"message", "finding"}


def quoted() -> list[str]:
    """The messages in the columns of that name."""
    found: list[str] = []
    column = None
    for line in PAGE.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            column = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if column is None:
            column = next((at for at, cell in enumerate(cells) if cell in _HEADS), len(cells))
        elif column < len(cells):
            found += [match[2].strip() for match in _SPAN.finditer(cells[column])]
    return found


def test_every_message_of_the_deployment_is_explained() -> None:
    page = " ".join(PAGE.read_text("utf-8").split())
    said = docs_messages.pieces()
    assert len(said) > 100
    assert not {piece: path for piece, path in said.items() if piece not in page}


def test_every_message_that_is_explained_is_said() -> None:
    commands = [
        node.value
        for path in (ROOT / "cli/hakuriver_cli/deploy").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    texts = [*docs_messages.texts(), *commands]
    messages = quoted()
    assert len(messages) > 100
    for message in messages:
        for piece in (piece.strip(" :,") for piece in message.split("…")):
            assert len(piece) < 6 or any(piece in text for text in texts), (
                f"nothing says {piece!r} ({message})"
            )

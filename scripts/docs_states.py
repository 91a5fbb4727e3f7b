"""The states of tasks, and which may follow which."""

from __future__ import annotations

import ast
import inspect

from docs_api import of_class

from hakuriver.states import FINAL, HOLDING, TaskState
from hakuriver_host.domain.machine import TRANSITIONS


def transitions() -> str:
    states = list(TaskState)
    lines = [
        "| from \\ to | " + " | ".join(f"`{state}`" for state in states) + " |",
        "|---" * (len(states) + 1) + "|",
    ]
    for state in states:
        cells = ["yes" if new in TRANSITIONS[state] else "" for new in states]
        lines.append(f"| `{state}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def states() -> str:
    meanings = dict(of_class(_class_of(TaskState)))
    lines = ["| state | meaning | holds cores and memory | final |", "|---|---|---|---|"]
    for state in TaskState:
        held, final = ("yes" if state in group else "" for group in (HOLDING, FINAL))
        lines.append(
            f"| `{state}` | {meanings.get(('TaskState', state.name), _PLAIN.get(state, ''))} | {held} | {final} |"
        )
    return "\n".join(lines)


_PLAIN = {
    TaskState.RUNNING: "The command runs.",
    TaskState.PAUSED: "All of its processes are frozen; it can go on.",
}


def _class_of(kind: type) -> ast.ClassDef:
    node = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(node, ast.ClassDef)  # noqa: S101 - it is the source of a class
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            index = node.body.index(statement)
            name = ast.Name(ast.unparse(statement.targets[0]))
            node.body[index] = ast.AnnAssign(name, ast.Name("str"), statement.value, 1)
    return node

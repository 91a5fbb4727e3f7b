"""`hakuriver gpu …`: the GPUs of all nodes."""

from __future__ import annotations

from hakuriver_cli import gpu_views as views
from hakuriver_cli.options import COMMON, Common, Watch
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app

app = new_app("gpu", "Look at the GPUs of all nodes.")


@app.command(name="list")
def list_gpus(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the GPUs: which task holds each, what it does now, and the programs on it with their tasks.

    A name in the first columns is a target: `hakuriver task run --target NODE::GPU`.
    """
    session = Session(common)
    return session.rows(lambda: views.rows_of(session.client.nodes()), views.GPUS, watch=watch)

"""`hakuriver gpu …`: the GPUs of all nodes."""

from __future__ import annotations

from hakuriver_cli import gpu_views as views
from hakuriver_cli.options import COMMON, Common, Watch
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app

app = new_app("gpu", "Look at the GPUs of all nodes.")


@app.command(name="list")
def list_gpus(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the GPUs: who holds each, and what it does now. `-o wide` shows the programs on each.

    A name in the first columns is a target: `hakuriver task run --target NODE::GPU`.
    """
    session = Session(common)
    if watch:
        from hakuriver.client import AsyncClient  # noqa: PLC0415
        from hakuriver_cli.watch import watch_rows  # noqa: PLC0415

        async def rows(client: AsyncClient) -> list[views.GpuRow]:
            return views.gpu_rows(await client.nodes())

        return watch_rows(session, rows, views.GPUS, events=False)
    session.printer.rows(views.gpu_rows(session.client.nodes()), views.GPUS)
    return 0

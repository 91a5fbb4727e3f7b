"""Versions brought to nodes ahead of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hakuriver.errors import HakuRiverError, NotFoundError
from hakuriver.models.environments import PrefetchRequest, SyncProgress, SyncRequest
from hakuriver.states import NodeState
from hakuriver_host.services.access import Principal
from hakuriver_host.services.environments.desk import Desk
from hakuriver_host.services.nodes import Nodes


class Syncing:
    def __init__(self, desk: Desk, nodes: Nodes) -> None:
        self._desk = desk
        self._nodes = nodes

    async def prefetch(
        self, name: str, request: PrefetchRequest, principal: Principal
    ) -> AsyncIterator[SyncProgress]:
        """Has nodes load a version; tells of each how it goes, until all are ready or have failed.

        Raises:
            NotFoundError: no such version or node.
        """
        await self._desk.may_use(name, principal)
        version = await self._desk.share(lambda: self._desk.chosen(name, request.version))
        nodes = self._desk.core.cluster.nodes
        for unknown in (node for node in request.nodes if node not in nodes):
            raise NotFoundError(f"no node is named {unknown}", "see `hakuriver node list`")
        wanted = request.nodes or [
            node.name
            for node in nodes.values()
            if node.state is NodeState.ONLINE and "docker" in node.engines
        ]
        if not wanted:
            raise NotFoundError("no node is online that runs containers", "see `hakuriver node list`")
        return self._prefetching(SyncRequest(name=name, version=version), wanted)

    async def _prefetching(self, request: SyncRequest, wanted: list[str]) -> AsyncIterator[SyncProgress]:
        told: asyncio.Queue[SyncProgress | None] = asyncio.Queue()

        async def one(node: str) -> None:
            base = SyncProgress(node=node, name=request.name, version=request.version, state="failed")
            try:
                last = base.model_copy(update={"reason": "the Runner said nothing"})
                async for progress in self._nodes.client(self._desk.core.cluster.nodes[node]).sync(request):
                    last = progress.model_copy(update={"node": node})
                    if last.state not in {"ready", "failed"}:
                        await told.put(last)
                await told.put(last)
            except HakuRiverError as error:
                await told.put(base.model_copy(update={"reason": error.message}))
            finally:
                await told.put(None)

        tasks = [asyncio.create_task(one(node)) for node in dict.fromkeys(wanted)]
        try:
            left = len(tasks)
            while left:
                progress = await told.get()
                if progress is None:
                    left -= 1
                else:
                    yield progress
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

"""All that the API asks of environments, in three parts over one desk."""

from __future__ import annotations

from hakuriver_host.services.core import Core
from hakuriver_host.services.environments.desk import Desk
from hakuriver_host.services.environments.pins import Pins
from hakuriver_host.services.environments.preparing import Preparing
from hakuriver_host.services.environments.syncing import Syncing
from hakuriver_host.services.environments.versions import VersionService
from hakuriver_host.services.nodes import Nodes


class Environments:
    """`share_id` names the cluster on the engine."""

    def __init__(self, core: Core, nodes: Nodes, pins: Pins, share_id: str) -> None:
        desk = Desk(core, pins, share_id)
        self.preparing = Preparing(desk)
        self.versions = VersionService(desk)
        self.syncing = Syncing(desk, nodes)
        self.engine = desk.engine

"""`hakuriver cluster status`: the inventory against what the Host says, and what was deployed last."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from hakuriver.errors import HakuRiverError
from hakuriver.models.nodes import NodeInfo
from hakuriver_cli.cells import time
from hakuriver_cli.deploy import content, history, inventory, lock
from hakuriver_cli.deploy.inventory import Machine
from hakuriver_cli.deploy.options import Inventory, VaultFile, find_inventory
from hakuriver_cli.deploy.outcome import Outcome, Status
from hakuriver_cli.deploy.play import inventory_arguments
from hakuriver_cli.deploy.port import Ansible, AnsibleRunner, check_installed
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.output import Column, Format, View
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from hakuriver import Client

_SHOWN = 5
_FETCH = "hakuriver_host_fetch_admin_token"


class Row(BaseModel):
    """One machine: as the inventory and as the Host have it."""

    name: str
    address: str
    role: str
    state: str
    """`online`, `offline`, `missing` (not known to the Host), `stray` (not in the inventory), `unknown`."""
    version: str = ""
    problem: str = ""


class Deployed(BaseModel):
    """One deployment of the history, in short."""

    what: str
    status: str
    started: datetime
    seconds: float
    user: str
    machine: str
    changed: int
    history: str


class Standing(BaseModel):
    """All that `cluster status` knows."""

    inventory: str
    inventory_url: str
    """Where the Host answers by the inventory."""
    host_url: str
    """Where it was asked: by what a deployment left beside the inventory, else by your configuration."""
    host_version: str | None
    lock: lock.Holder | None
    machines: list[Row]
    deployments: list[Deployed]


def status(
    *, inventory: Inventory = None, vault_password_file: VaultFile = None, common: Common = COMMON
) -> int:
    """Compare the inventory with what the Host says, and show the last deployments and who holds the lock.

    Exits with 1 when a node of the inventory is not online.
    """
    check_installed()
    session = Session(common)
    found = find_inventory(inventory)
    machines = _machines(ansible(), found, vault_password_file)
    standing = _standing(session, found, machines)
    _show(session, standing)
    return 0 if all(row.state == "online" for row in standing.machines if row.state != "stray") else 1


def ansible() -> Ansible:
    """What reads the inventory; tests put a double here."""
    return AnsibleRunner(content.project())


def compared(machines: list[Machine], nodes: list[NodeInfo] | None, host_version: str | None) -> list[Row]:
    """The machines of the inventory, then the nodes that are not in it. `nodes` is None when the Host is silent."""
    known = {node.hostname: node for node in nodes or []}
    rows = [
        _row(machine, known.pop(machine.node, None), nodes is not None, host_version) for machine in machines
    ]
    strays = [
        Row(name=node.hostname, address=node.url, role="runner", state="stray", version=node.version)
        for node in known.values()
    ]
    return rows + strays


def deployed(outcome: Outcome, holder: lock.Holder | None) -> Deployed:
    """In short. One that says it runs while nobody holds the lock was killed."""
    status = str(outcome.status)
    if outcome.status is Status.RUNNING and holder is None and outcome.what not in {"check", "logs"}:
        status = "broken off"
    return Deployed(
        what=f"{outcome.what} --check" if "--check" in outcome.options else outcome.what,
        status=status,
        started=outcome.started,
        seconds=outcome.seconds,
        user=outcome.user,
        machine=outcome.machine,
        changed=outcome.changed,
        history=outcome.history,
    )


def _row(machine: Machine, node: NodeInfo | None, answered: bool, host_version: str | None) -> Row:
    role = "+".join(name for name, has in (("host", machine.is_host), ("runner", machine.is_runner)) if has)
    row = Row(name=machine.name, address=machine.address, role=role, state="unknown")
    if machine.is_runner and answered:
        row.state = str(node.status) if node else "missing"
        row.version = node.version if node else ""
        row.problem = node.problem if node else ""
    elif machine.is_host and answered:
        row.state = "online"
        row.version = host_version or ""
    return row


def _machines(reader: Ansible, found: Path, vault_password_file: Path | None) -> list[Machine]:
    return inventory.machines(reader.inventory(inventory_arguments(found, vault_password_file)))


def _standing(session: Session, found: Path, machines: list[Machine]) -> Standing:
    controller = inventory.controller(found)
    holder = lock.holder(controller)
    url = inventory.host_url(machines)
    nodes: list[NodeInfo] | None = None
    version = None
    client = _client(session, controller, url)
    try:
        version = client.cluster().version
        nodes = client.nodes()
    except HakuRiverError as error:
        session.printer.say(f"the Host was not asked: {error.message}")
        session.printer.say(f"set {_FETCH}: true in the inventory and deploy, or configure your own access")
    return Standing(
        inventory=str(found),
        inventory_url=url,
        host_url=client.url,
        host_version=version,
        lock=holder,
        machines=compared(machines, nodes, version),
        deployments=[deployed(outcome, holder) for outcome in history.deployments(controller, _SHOWN)],
    )


def _client(session: Session, controller: Path, url: str) -> Client:
    """Asks with the token and the CA that a deployment left beside the inventory, else as your configuration says."""
    from hakuriver.client import Client  # noqa: PLC0415  (loaded only by commands that need it)

    token, ca = controller / "admin.token", controller / "ca" / "ca.pem"
    if not url or not token.is_file():
        return session.client
    return Client(url, token.read_text("ascii").strip(), ca_file=ca if ca.is_file() else None)


def _show(session: Session, standing: Standing) -> None:
    printer = session.printer
    if printer.form is Format.JSON:
        printer.json(standing.model_dump(mode="json"))
        return
    printer.rows(standing.machines, MACHINES)
    if printer.form is Format.NAME:
        return
    if standing.deployments:
        printer.out.write("\n")
        printer.rows(standing.deployments, DEPLOYMENTS)
    printer.say(f"inventory: {standing.inventory}")
    if standing.inventory_url != standing.host_url:
        printer.say(
            f"the Host of the inventory is {standing.inventory_url}, asked was that of your configuration: {standing.host_url}"
        )
    if standing.lock:
        printer.say(f"a deployment goes on: {standing.lock}")


def _style(row: Row) -> str:
    return {"online": "green", "unknown": "", "stray": "yellow"}.get(row.state, "red")


MACHINES: View[Row] = View(
    name=lambda row: row.name,
    columns=[
        Column("NODE", lambda row: row.name),
        Column("ROLE", lambda row: row.role),
        Column("ADDRESS", lambda row: row.address),
        Column("STATE", lambda row: row.state, style=_style),
        Column("VERSION", lambda row: row.version),
        Column("PROBLEM", lambda row: row.problem, limit=60),
    ],
)

DEPLOYMENTS: View[Deployed] = View(
    name=lambda deployment: deployment.history,
    columns=[
        Column("DEPLOYMENT", lambda deployment: deployment.what),
        Column("ENDED", lambda deployment: deployment.status),
        Column("AT", lambda deployment: time(deployment.started)),
        Column("SECONDS", lambda deployment: f"{deployment.seconds:.0f}", right=True),
        Column("CHANGED", lambda deployment: str(deployment.changed), right=True),
        Column("BY", lambda deployment: f"{deployment.user}@{deployment.machine}"),
        Column("HISTORY", lambda deployment: deployment.history, wide=True),
    ],
)

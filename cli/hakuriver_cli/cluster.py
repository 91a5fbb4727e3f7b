"""`hakuriver status | version`: how the cluster is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hakuriver.errors import HakuRiverError
from hakuriver.version import __version__
from hakuriver_cli import cluster_views as views
from hakuriver_cli.options import COMMON, Common, Watch
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from hakuriver.models.nodes import ClusterStatus


def status(*, watch: Watch = False, common: Common = COMMON) -> int:
    """Show how the cluster is: nodes, what is held, tasks by state, problems."""
    session = Session(common)
    if watch:
        from hakuriver.client import AsyncClient  # noqa: PLC0415
        from hakuriver_cli import watch as again  # noqa: PLC0415

        async def fetch(client: AsyncClient) -> list[ClusterStatus]:
            return [await client.cluster()]

        return again.watch(
            session, fetch, lambda found: session.printer.record(found[0], views.CLUSTER), events=True
        )
    session.printer.record(session.client.cluster(), views.CLUSTER)
    return 0


def version(*, common: Common = COMMON) -> None:
    """Show the versions of client and Host; a Host that does not answer is no error here."""
    from hakuriver_cli.records import VersionRow  # noqa: PLC0415  (see there)

    session = Session(common)
    try:
        host = session.client.cluster().version
    except HakuRiverError as error:
        host = None
        session.printer.say(f"the Host's version is not known: {error.message}")
    row = VersionRow(client=__version__, host=host, url=session.settings.host_url)
    session.printer.record(row, views.VERSION)

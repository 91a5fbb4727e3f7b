"""`hakuriver status | version`: how the cluster is."""

from __future__ import annotations

from hakuriver.errors import HakuRiverError
from hakuriver.version import __version__
from hakuriver_cli import cluster_views as views
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.session import Session


def status(*, common: Common = COMMON) -> None:
    """Show how the cluster is: nodes, what is held, tasks by state, problems."""
    session = Session(common)
    session.printer.record(session.client.cluster(), views.CLUSTER)


def version(*, common: Common = COMMON) -> None:
    """Show the versions of client and Host; a Host that does not answer is no error here."""
    session = Session(common)
    try:
        host = session.client.cluster().version
    except HakuRiverError as error:
        host = None
        session.printer.say(f"the Host's version is not known: {error.message}")
    row = views.VersionRow(client=__version__, host=host, url=session.settings.host_url)
    session.printer.record(row, views.VERSION)

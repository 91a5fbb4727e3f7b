"""`hakuriver status | version | env list`: how the cluster is, and what tasks can run in."""

from __future__ import annotations

from hakuriver.errors import HakuRiverError
from hakuriver.version import __version__
from hakuriver_cli import cluster_views as views
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app

environments = new_app("env", "Look at the environments.")


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


@environments.command(name="list")
def list_environments(*, common: Common = COMMON) -> None:
    """List the environments that are on the share, each with its versions."""
    session = Session(common)
    rows = [
        views.EnvironmentRow(
            name=name,
            timestamp=version.timestamp,
            tarball=version.tarball,
            latest=version.timestamp == found.latest_timestamp,
        )
        for name, found in sorted(session.client.environments().items())
        for version in sorted(found.all_versions, key=lambda version: -version.timestamp)
    ]
    session.printer.rows(rows, views.ENVIRONMENTS)

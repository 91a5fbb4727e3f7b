"""`hakuriver.docker`: the reference's commands for environments, as doors to the same calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hakuriver_cli import cluster_views, environment_views
from hakuriver_cli.environments import Name, delete, pack, start, stop
from hakuriver_cli.options import COMMON, Common, Watch
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from hakuriver_cli.records import EnvironmentRow


def list_containers(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the containers on the Host in which environments are prepared."""
    session = Session(common)
    return session.rows(session.client.env.containers, environment_views.CONTAINERS, watch=watch)


def create_container(
    image: Annotated[str, Parameter(name="IMAGE", help="An image that the Host's engine has or can pull.")],
    name: Name,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Make the container of a new environment from an image."""
    session = Session(common)
    made = session.client.env.create(name, image=image)
    session.printer.record(made, environment_views.ENVIRONMENT)


def delete_container(name: Name, /, *, common: Common = COMMON) -> int:
    """Delete the container of an environment; its versions stay."""
    return delete([name], common=common)


def start_container(name: Name, /, *, common: Common = COMMON) -> int:
    """Start the container of an environment."""
    return start([name], common=common)


def stop_container(name: Name, /, *, common: Common = COMMON) -> int:
    """Stop the container of an environment."""
    return stop([name], common=common)


def list_tars(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the versions of environments with their files in the shared storage."""
    session = Session(common)
    return session.rows(lambda: _tars(session), cluster_views.ENVIRONMENTS, watch=watch)


def _tars(session: Session) -> list[EnvironmentRow]:
    from hakuriver_cli.records import EnvironmentRow  # noqa: PLC0415  (see there)

    return [
        EnvironmentRow(
            name=name,
            timestamp=version.timestamp,
            tarball=version.tarball,
            latest=version.timestamp == found.latest_timestamp,
        )
        for name, found in sorted(session.client.environments().items())
        for version in sorted(found.all_versions, key=lambda version: -version.timestamp)
    ]


def create_tar(name: Name, /, *, common: Common = COMMON) -> None:
    """Pack the container of an environment as its next version."""
    pack(name, common=common)

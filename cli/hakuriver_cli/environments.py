"""`hakuriver env …`: environments are made, filled, packed into versions, and brought to nodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hakuriver.errors import UsageError
from hakuriver.references import Reference, parse_reference
from hakuriver.sizes import format_duration, format_size
from hakuriver_cli import environment_views as views
from hakuriver_cli.options import COMMON, Common, Interactive, Tty, Variables, Watch, Workdir
from hakuriver_cli.output import Format
from hakuriver_cli.session import Session
from hakuriver_cli.submitting import variables
from hakuriver_cli.tree import new_app

if TYPE_CHECKING:
    from hakuriver.models.environments import SyncProgress

app = new_app("env", "Prepare environments, pack them, and bring them to nodes.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the environment.")]
Names = Annotated[list[str], Parameter(name="NAME", help="Names of environments; several may be given.")]
VersionOf = Annotated[
    str,
    Parameter(name="NAME[@VERSION]", help="The environment; NAME@VERSION or NAME:TAG for another version."),
]


@app.command
def create(
    name: Name,
    /,
    *,
    image: Annotated[
        str | None, Parameter(help="An image that the Host's engine has or can pull.", metavar="IMAGE")
    ] = None,
    base: Annotated[
        str | None,
        Parameter(name="--from", help="A version of an environment: NAME, NAME@VERSION or NAME:TAG."),
    ] = None,
    archive: Annotated[
        Path | None, Parameter(help="An archive that `docker save` wrote, or an OCI archive.", metavar="FILE")
    ] = None,
    rootfs: Annotated[
        Path | None, Parameter(help="A root file system: a tar, or a folder.", metavar="PATH")
    ] = None,
    dockerfile: Annotated[
        Path | None,
        Parameter(help="A folder with a Dockerfile, built by the Host's engine.", metavar="FOLDER"),
    ] = None,
    debootstrap: Annotated[
        str | None,
        Parameter(help="A suite of Debian or Ubuntu, such as bookworm, made by the Host.", metavar="SUITE"),
    ] = None,
    include: Annotated[
        tuple[str, ...],
        Parameter(help="With --debootstrap: a further package; repeatable.", metavar="PACKAGE"),
    ] = (),
    common: Common = COMMON,
) -> None:
    """Make an environment: a container on the Host, in which you install what tasks need.

    Then work in it (`hakuriver env shell NAME`) and pack it (`hakuriver env pack NAME`).
    """
    from hakuriver_cli.transfer import (  # noqa: PLC0415  (loaded only where files travel)
        context_of,
        pieces_of_file,
        tar_of,
    )

    session = Session(common)
    sources = {"--image": image, "--from": base, "--debootstrap": debootstrap}
    files = {"archive": archive, "rootfs": rootfs, "dockerfile": dockerfile}
    given = [flag for flag, value in sources.items() if value] + [
        f"--{kind}" for kind, path in files.items() if path
    ]
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given)} are given" if given else "it is not said what to make it of",
            "give one of --image, --from, --archive, --rootfs, --dockerfile, --debootstrap",
        )
    for kind, path in files.items():
        if path is not None:
            if path.is_dir():
                tar = context_of(path) if kind == "dockerfile" else tar_of(path)
            else:
                tar = pieces_of_file(path)
            made = session.client.env.create_from(name, kind, _told(session, tar, f"sending {path}"))
            break
    else:
        source = {"image": image, "base": base, "debootstrap": debootstrap}
        made = session.client.env.create(name, **source, include=[*include])
    session.printer.record(made, views.ENVIRONMENT)


@app.command
def clone(
    name: Name,
    new: Annotated[str, Parameter(name="NEW", help="Name of the new environment.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Make a new environment of what is in another one now, packed or not."""
    session = Session(common)
    session.printer.record(session.client.env.clone(name, new), views.ENVIRONMENT)


@app.command(name="list")
def list_environments(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the environments; `-o wide` shows sizes, shared bytes, and which nodes have what."""
    session = Session(common)
    return session.rows(session.client.env.list, views.ENVIRONMENTS, watch=watch)


@app.command
def versions(name: Name, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """List the versions of an environment, newest first."""
    session = Session(common)
    return session.rows(lambda: session.client.env.get(name).versions, views.VERSIONS, watch=watch)


@app.command
def start(names: Names, /, *, common: Common = COMMON) -> int:
    """Start the containers of environments."""
    session = Session(common)
    return _each(session, names, lambda name: session.client.env.start(name).message)


@app.command
def stop(names: Names, /, *, common: Common = COMMON) -> int:
    """Stop the containers of environments; what is in them stays."""
    session = Session(common)
    return _each(session, names, lambda name: session.client.env.stop(name).message)


@app.command
def delete(
    names: Annotated[
        list[str], Parameter(name="NAME[@VERSION]", help="Environments, or versions; several may be given.")
    ],
    /,
    *,
    versions: Annotated[bool, Parameter(help="All versions too, not the container alone.")] = False,
    common: Common = COMMON,
) -> int:
    """Delete the containers of environments, or single versions; what is not packed is gone."""
    session = Session(common)

    def act(text: str) -> str:
        name, version = _numbered(session, text)
        return session.client.env.delete(name, versions=versions, version=version).message

    return _each(session, names, act)


@app.command
def shell(
    name: Name,
    /,
    *,
    user: Annotated[
        str | None, Parameter(name=("--user", "-u"), help="Who to be; root unless given.")
    ] = None,
    common: Common = COMMON,
) -> int:
    """Open a shell in an environment's container; ends with the shell's exit code."""
    from hakuriver_cli.terminal import environment_door, run_terminal  # noqa: PLC0415  (loads the library for WebSockets)

    session = Session(common)
    return run_terminal(session, environment_door(name), [], tty=True, stdin=True, user=user)


@app.command(name="exec")
def execute(
    name: Name,
    /,
    *command_line: Annotated[
        str, Parameter(name="COMMAND", help="The command and its arguments.", allow_leading_hyphen=True)
    ],
    interactive: Interactive = False,
    tty: Tty = False,
    user: Annotated[
        str | None, Parameter(name=("--user", "-u"), help="Who to be; root unless given.")
    ] = None,
    workdir: Workdir = None,
    env: Variables = (),
    common: Common = COMMON,
) -> int:
    """Run a command in an environment's container; ends with its exit code."""
    from hakuriver_cli.terminal import environment_door, run_terminal  # noqa: PLC0415  (loads the library for WebSockets)

    words = command_line[1:] if command_line[:1] == ("--",) else command_line
    if not words:
        raise UsageError("no command is given", f"such as: hakuriver env exec {name} -- pip install numpy")
    return run_terminal(
        Session(common),
        environment_door(name),
        [*words],
        tty=tty,
        stdin=interactive,
        user=user,
        working_dir=workdir,
        env_vars=variables(env, ()),
    )


@app.command
def cp(
    source: Annotated[str, Parameter(name="SOURCE", help="A path here, or NAME:/PATH in an environment.")],
    target: Annotated[str, Parameter(name="TARGET", help="The other of the two.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Copy files and folders into an environment's container or out of it.

    Links that lead out of what is copied, and devices, do not come out with the rest: they are named.
    """
    from hakuriver_cli.copying import copy_with_environment  # noqa: PLC0415

    copy_with_environment(Session(common), source, target)


@app.command
def pack(
    name: Name,
    /,
    *,
    message: Annotated[str, Parameter(name=("--message", "-m"), help="What has changed.")] = "",
    common: Common = COMMON,
) -> None:
    """Pack what is in an environment's container now as its next version; the container goes on as it was.

    Only what has changed since the last packing is written to the shared storage.
    """
    session = Session(common)
    packed = session.client.env.pack(name, message)
    if session.printer.form is Format.TABLE:
        session.printer.say(f"{packed.message}; {format_size(packed.written)} were written")
        if packed.full:
            session.printer.say(
                f"the Host's engine tells no changes by themselves, so all of it was read: {packed.why_full}"
            )
    session.printer.rows([packed.version], views.VERSIONS)


@app.command
def diff(
    before: VersionOf,
    after: Annotated[str | None, Parameter(name="VERSION", help="The version to compare with.")] = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Compare two versions: `env diff NAME` the current one with the one before, `env diff NAME@A B` two."""
    session = Session(common)
    name, first = _numbered(session, before)
    second = (
        None
        if after is None
        else _numbered(session, after if after.startswith(name) else f"{name}@{after}")[1]
    )
    if second is None:
        first, second = None, first
    found = session.client.env.diff(name, first, second)
    if session.printer.form is Format.JSON:
        session.printer.json(found.model_dump(mode="json"))
        return
    session.printer.say(views.difference(found))
    session.printer.rows(found.packages or [], views.PACKAGES)


@app.command
def rollback(reference: VersionOf, /, *, common: Common = COMMON) -> None:
    """Make an older version the current one; without a version, the one before. Tasks that are queued keep theirs."""
    session = Session(common)
    name, version = _numbered(session, reference)
    session.printer.rows([session.client.env.rollback(name, version)], views.VERSIONS)


@app.command
def tag(
    reference: VersionOf,
    name_of_it: Annotated[str, Parameter(name="TAG", help="Its name: letters, digits and . _ - inside.")],
    /,
    *,
    remove: Annotated[bool, Parameter(help="Take the tag away.")] = False,
    common: Common = COMMON,
) -> None:
    """Name a version: tasks take it as NAME:TAG, and retention keeps it."""
    session = Session(common)
    name, version = _numbered(session, reference)
    session.printer.rows([session.client.env.tag(name, name_of_it, version, remove=remove)], views.VERSIONS)


@app.command
def export(
    reference: VersionOf,
    /,
    *,
    file: Annotated[
        Path | None,
        Parameter(
            name=("--file", "-f"), help="Where to; `-` is standard output. NAME-VERSION.tar unless given."
        ),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Write a version as one archive, which `docker load` and `env import` take."""
    from hakuriver_cli.transfer import save  # noqa: PLC0415

    session = Session(common)
    name, version = _numbered(session, reference)
    with session.client.env.export(name, version) as (number, pieces):
        if str(file) == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        target = file or Path(f"{name}-{number}.tar")
        save(_told(session, pieces, f"writing {target}"), target)
    session.printer.say(f"{name}@{number} is written to {target}")


@app.command(name="import")
def import_(
    file: Annotated[Path, Parameter(name="FILE", help="An archive: NAME-VERSION.tar, or of `docker save`.")],
    name: Annotated[
        str | None, Parameter(name="NAME", help="Name of the environment; else the file's.")
    ] = None,
    /,
    *,
    message: Annotated[str, Parameter(name=("--message", "-m"), help="What it is.")] = "",
    common: Common = COMMON,
) -> None:
    """Make an archive the next version of an environment."""
    from hakuriver_cli.transfer import name_of, pieces_of_file  # noqa: PLC0415

    session = Session(common)
    wanted = name or name_of(file)
    packed = session.client.env.import_(
        wanted,
        _told(session, pieces_of_file(file), f"sending {file}"),
        message or f"imported from {file.name}",
    )
    session.printer.rows([packed.version], views.VERSIONS)


@app.command
def prefetch(
    reference: VersionOf,
    /,
    *,
    node: Annotated[
        tuple[str, ...], Parameter(name=("--node", "-n"), help="Which node; repeatable. All unless given.")
    ] = (),
    common: Common = COMMON,
) -> int:
    """Have nodes load a version ahead of time; the exit code is 1 when one of them cannot."""
    session = Session(common)
    name, version = _numbered(session, reference)
    last: dict[str, SyncProgress] = {}
    from hakuriver_cli.progress import Progress  # noqa: PLC0415

    with Progress(session.printer.err) as progress:
        for each in session.client.env.prefetch(name, version, node):
            last[each.node] = each
            progress.update("; ".join(f"{name}: {_state(state)}" for name, state in sorted(last.items())))
    session.printer.rows([last[name] for name in sorted(last)], views.SYNCS)
    return int(any(each.state != "ready" for each in last.values()))


@app.command
def gc(
    *,
    dry_run: Annotated[bool, Parameter(help="Only say what would be removed.")] = False,
    common: Common = COMMON,
) -> None:
    """Remove versions past retention, and layers that no version has; never what a task names that has not ended."""
    session = Session(common)
    session.printer.record(session.client.env.collect_garbage(dry_run=dry_run), views.GARBAGE)


def _numbered(session: Session, text: str) -> tuple[str, int | None]:
    """Name and number of a reference; the number is none for the current version."""
    try:
        reference: Reference = parse_reference(text)
    except ValueError as error:
        raise UsageError(str(error), "see `hakuriver env list`") from None
    if reference.tag is None:
        return reference.name, reference.version
    for version in session.client.env.get(reference.name).versions:
        if reference.tag in version.tags:
            return reference.name, version.version
    raise UsageError(
        f"{reference.name} has no tag {reference.tag!r}", f"see `hakuriver env versions {reference.name}`"
    )


def _each(session: Session, names: list[str], act: views.Act) -> int:
    from hakuriver_cli.cluster_views import TOLD  # noqa: PLC0415
    from hakuriver_cli.records import Told  # noqa: PLC0415  (see there)

    done: list[Told] = []
    code = session.for_each(names, lambda name: done.append(Told(name=name, message=act(name))))
    if done:
        session.printer.rows(done, TOLD)
    return code


def _told(session: Session, pieces: Iterator[bytes], what: str) -> Iterator[bytes]:
    """The pieces, with a line on a terminal that says how many bytes have gone."""
    from hakuriver_cli.progress import Progress  # noqa: PLC0415

    done = 0
    with Progress(session.printer.err) as progress:
        for piece in pieces:
            yield piece
            done += len(piece)
            progress.update(f"{what}: {format_size(done)}")


def _state(progress: SyncProgress) -> str:
    if progress.state != "loading" or not progress.total:
        return progress.state
    left = "" if progress.seconds_left is None else f", {format_duration(round(progress.seconds_left))} left"
    return f"{format_size(progress.done)} of {format_size(progress.total)}{left}"

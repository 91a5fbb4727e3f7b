"""Environments: their versions as they lie on the share, and what is told of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hakuriver.models.base import PeerModel, StrictModel, Timestamp
from hakuriver.references import TAG, check_name

MANIFEST_FORMAT = 1
MAX_LAYERS = 100
"""Engines stack at most about 125 layers; a longer chain is folded when it is packed."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


EnvironmentName = Annotated[str, AfterValidator(check_name)]
TagName = Annotated[str, StringConstraints(pattern=rf"^{TAG.pattern}$")]


class LayerInfo(PeerModel):
    """One layer: a tar of files, kept once on the share however many versions have it."""

    diff_id: Digest
    """SHA-256 of the uncompressed tar, as in the image's configuration (OCI image-spec, `rootfs.diff_ids`)."""
    size: int = Field(ge=0)
    """Bytes of the uncompressed tar."""
    stored: int = Field(ge=0)
    """Bytes on the share, compressed."""


Packages = dict[str, dict[str, str]]
"""Per package manager (`apt`, `pip`, `apk`) the installed packages with their versions."""


class VersionManifest(PeerModel):
    """One version of an environment, whole: written last, and never changed."""

    format: int = MANIFEST_FORMAT
    name: EnvironmentName
    version: int = Field(ge=0)
    """Unix seconds of its packing; unique within the environment."""
    created: Timestamp
    author: str = ""
    message: str = ""
    parent: int | None = None
    """The version that it was made from, of the same environment."""
    config: str
    """The image's configuration (OCI image-spec), byte by byte: its digest is the image's."""
    layers: list[LayerInfo] = Field(max_length=128)
    """Lowest first."""
    packages: Packages | None = None
    """None when nobody could tell."""

    @property
    def image(self) -> str:
        """Digest of the configuration: the image's id in every engine."""
        return digest_of(self.config.encode())

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def tag(self) -> str:
        """What an engine calls the image."""
        return image_tag(self.name, self.version)


class EnvironmentHead(PeerModel):
    """What of an environment may change: which version is current, and its tags."""

    current: int | None = None
    """None: the newest."""
    tags: dict[str, int] = {}


class VersionInfo(PeerModel):
    """One version, as a list shows it."""

    name: str
    version: int
    reference: str
    """What `--container` takes."""
    current: bool
    tags: list[str] = []
    image: str | None = None
    """Digest; none of an archive that lies on the share as a whole."""
    created: Timestamp
    author: str = ""
    message: str = ""
    parent: int | None = None
    layers: int | None = None
    size: int
    """Bytes of its files (of the archive, where it is one)."""
    stored: int
    """Bytes of its layers on the share."""
    own: int
    """Of these, bytes that no other version has: what removing it would free."""
    nodes: list[str] = []
    """Nodes whose engine has it."""


class EnvironmentInfo(PeerModel):
    """One environment: the container on the Host in which it is prepared, if there is one, and its versions."""

    name: str
    container: str | None = None
    """State of the container, such as `running` or `exited`; none when there is none."""
    image: str | None = None
    """What the container was made from."""
    current: int | None = None
    """None while nothing is packed."""
    versions: list[VersionInfo] = []
    """Newest first."""
    stored: int = 0
    """Bytes of all its versions on the share, each layer counted once."""
    shared: int = 0
    """Of these, bytes that other environments have too."""


class PackageChange(PeerModel):
    manager: str
    name: str
    before: str | None = None
    after: str | None = None


class VersionDiff(PeerModel):
    """What lies between two versions."""

    name: str
    before: int
    after: int
    size_before: int
    size_after: int
    added_layers: list[LayerInfo]
    removed_layers: list[LayerInfo]
    packages: list[PackageChange] | None = None
    """None when one of them does not tell its packages."""


class EnvironmentCreate(StrictModel):
    """Makes the container of a new environment from an image or a version of an environment."""

    name: EnvironmentName
    image: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    """An image that the Host's engine has or can pull."""
    base: Annotated[str, StringConstraints(max_length=160)] | None = None
    """A version of an environment: NAME, NAME@VERSION or NAME:TAG."""
    debootstrap: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] | None = None
    """Suite of Debian or Ubuntu, such as `bookworm`."""
    include: list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]*$")]] = []
    """Further packages for `debootstrap`."""


class EnvironmentClone(StrictModel):
    name: EnvironmentName
    """Of the new environment."""


class PackRequest(StrictModel):
    message: Annotated[str, StringConstraints(max_length=1000)] = ""


class PackResult(PeerModel):
    """What a packing made; `written` is what it cost on the share."""

    message: str
    version: VersionInfo
    written: int
    """Bytes written to the share."""
    full: bool
    """Whether the engine's whole archive had to be read: it tells no changes by themselves."""
    why_full: str = ""
    """What about the engine makes that necessary."""
    tarball_path: str
    """Of the version on the share, relative to its root."""
    removed: list[int] = []
    """Versions that retention removed."""


class RollbackRequest(StrictModel):
    version: int | None = Field(default=None, ge=0)
    """None: the one before the current one."""


class TagRequest(StrictModel):
    tag: TagName
    version: int | None = Field(default=None, ge=0)
    """None: the current one."""
    remove: bool = False


class PrefetchRequest(StrictModel):
    version: int | None = Field(default=None, ge=0)
    """None: the current one."""
    nodes: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] = []
    """Empty: all that are online and have a container engine."""


class SyncProgress(PeerModel):
    """How the syncing of one version to one node goes."""

    node: str = ""
    name: str
    version: int
    state: Literal["waiting", "loading", "ready", "failed"]
    done: int = 0
    """Bytes loaded, of `total`: uncompressed, of the layers that were missing."""
    total: int = 0
    seconds_left: float | None = None
    reason: str | None = None
    """Why it waits or failed."""


class SyncRequest(PeerModel):
    """The Host asks a Runner to have a version in its engine."""

    name: EnvironmentName
    version: int = Field(ge=0)


class GarbageReport(PeerModel):
    """What a collection removed."""

    versions: list[str] = []
    """References."""
    layers: int = 0
    freed: int = 0
    """Bytes on the share."""
    dry_run: bool = False


class EnvironmentContainer(PeerModel):
    """A container in which an environment is prepared; the names of the fields are the reference's."""

    id: str
    name: str
    image: str
    status: str
    owner: str


class ReferenceCreate(StrictModel):
    """`POST /api/docker/host/create`, as the reference has it."""

    image_name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    container_name: EnvironmentName


class ReferencePacked(PeerModel):
    """The answer of `POST /api/docker/create_tar/{name}`."""

    message: str
    tarball_path: str


class TerminalStart(StrictModel):
    """The first message of a terminal: what to run in the container."""

    argv: list[Annotated[str, StringConstraints(max_length=131_071)]] = Field(default=[], max_length=4096)
    """Empty: the container's shell."""
    tty: bool = True
    rows: int = Field(default=24, ge=1, le=10_000)
    columns: int = Field(default=80, ge=1, le=10_000)
    stdin: bool = True
    working_dir: Annotated[str, StringConstraints(pattern=r"^/")] | None = None
    user: Annotated[str, StringConstraints(max_length=64)] | None = None
    env_vars: dict[str, str] = {}
    resumable: bool = False
    """Whether it may go on over a lost connection, as `hakuriver.sessions` says; only with a tty."""


class TerminalResume(StrictModel):
    """The first message of a connection that takes a terminal up again."""

    session: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    received: int = Field(ge=0)
    """Bytes of output that have come since the terminal began."""


def image_tag(name: str, version: int | str) -> str:
    return f"hakuriver/{name}:{version}"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def package_changes(before: Packages, after: Packages) -> list[PackageChange]:
    """What was installed, removed or changed in version, by manager and name."""
    found = []
    for manager in sorted({*before, *after}):
        old, new = before.get(manager, {}), after.get(manager, {})
        found += [
            PackageChange(manager=manager, name=name, before=old.get(name), after=new.get(name))
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return found


def unique_bytes(layers: Iterable[LayerInfo]) -> int:
    """Bytes on the share of layers that may occur several times."""
    return sum({layer.diff_id: layer.stored for layer in layers}.values())

"""The Host's Docker engine, as preparing environments needs it: the one place there that knows the Docker SDK.

Every method blocks; the SDK is imported on first use, since it is large. Only containers that carry this cluster's
labels are listed or touched.
"""

from __future__ import annotations

import contextlib
import tarfile
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, UnreachableError, UsageError
from hakuriver.pieces import PieceReader
from hakuriver.store.layout import LIFE
from hakuriver.terminals import ContainerExecs

LABEL_ENVIRONMENT = "hakuriver.environment"
LABEL_CLUSTER = "hakuriver.cluster"
LABEL_OWNER = "hakuriver.owner"
LABEL_HELPER = "hakuriver.helper"
UPPER = "upper"
_SHARED = "/shared"
_KEEP = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done"
"""Keeps a container up without using anything; ends at once when it is stopped."""
_PIECE = 1 << 20
_CALL_SECONDS = 60
_LONG_SECONDS = 3600
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class EnvContainer:
    """The container of one environment."""

    id: str
    environment: str
    owner: str
    image: str
    """Digest of what it was made from."""
    image_name: str
    state: str
    """The engine's word: `running`, `exited`, `created`, `paused`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the engine can do."""

    name: str
    tells_changes: bool
    """Whether a container's changes can be read by themselves."""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Upper:
    """What was changed in a container since it was made."""

    entries: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]]
    removed: frozenset[str]
    content: Callable[[str], Iterator[bytes]]


class HostEngine:
    """`cluster` is the share's id: environments of another cluster on the same engine are not this one's."""

    def __init__(self, url: str, cluster: str) -> None:
        self._url = url
        self._cluster = cluster
        self._lock = threading.Lock()
        self._clients: dict[int, Any] = {}

    def client(self, timeout: int = _CALL_SECONDS) -> Any:
        """The SDK's client; untyped, as most of its methods are.

        Raises:
            UnreachableError: no engine answers.
        """
        import docker  # noqa: PLC0415 - large, and needed only by a Host that prepares environments
        from docker.errors import DockerException  # noqa: PLC0415
        from docker.utils import kwargs_from_env  # noqa: PLC0415

        with self._lock:
            if (known := self._clients.get(timeout)) is not None:
                return known
            options: dict[str, Any] = {**kwargs_from_env()}
            options.setdefault("base_url", self._url or "unix:///var/run/docker.sock")
            if self._url:
                options["base_url"] = self._url
            try:
                made = docker.APIClient(**options, version="auto", timeout=timeout, max_pool_size=16)
            except DockerException as error:
                raise _away(error) from None
            self._clients[timeout] = made
            return made

    @contextlib.contextmanager
    def _words(self, what: str) -> Iterator[None]:
        """Turns the SDK's errors into ours."""
        from docker.errors import APIError, DockerException, NotFound  # noqa: PLC0415
        from requests.exceptions import RequestException  # noqa: PLC0415

        try:
            yield
        except NotFound as error:
            raise NotFoundError(f"{what}: {_line(error.explanation)}", "see `hakuriver env list`") from None
        except APIError as error:
            text = _line(error.explanation or error)
            if error.status_code == 409:  # noqa: PLR2004 - HTTP
                raise ConflictError(f"{what}: {text}", "see `hakuriver env list`") from None
            raise HakuRiverError(f"{what}: {text}", "see the engine's log, and try again") from None
        except (RequestException, DockerException) as error:
            raise _away(error) from None

    def kind(self) -> Kind:
        with self._words("the engine's kind"):
            info = self.client().info()
        driver = str(info.get("Driver"))
        status = {str(key): str(value) for key, value in info.get("DriverStatus") or []}
        if status.get("driver-type", "").startswith("io.containerd"):
            return Kind(f"containerd image store ({driver})", False, "it keeps images in containerd")
        if driver != "overlay2":
            return Kind(driver, False, f"its storage driver is {driver}, not overlay2")
        if status.get("Native Overlay Diff") == "false":
            return Kind(driver, False, "its kernel keeps redirects in overlays")
        return Kind(driver, True)

    # Containers

    def containers(self) -> list[EnvContainer]:
        labels = [f"{LABEL_CLUSTER}={self._cluster}", LABEL_ENVIRONMENT]
        with self._words("listing containers"):
            found = self.client().containers(all=True, filters={"label": labels})
        return sorted(map(_container, found), key=lambda container: container.environment)

    def find(self, name: str) -> EnvContainer | None:
        return next((each for each in self.containers() if each.environment == name), None)

    def container(self, name: str) -> EnvContainer:
        """Raises `NotFoundError` when the environment has no container."""
        found = self.find(name)
        if found is None:
            raise NotFoundError(
                f"the environment {name} has no container on the Host",
                f"make one: `hakuriver env create {name} --from {name}`, or see `hakuriver env list`",
            )
        return found

    def create(self, name: str, owner: str, image: str, shared: str | None) -> EnvContainer:
        """Makes and starts the container of a new environment."""
        labels = {LABEL_ENVIRONMENT: name, LABEL_CLUSTER: self._cluster, LABEL_OWNER: owner}
        mounts = [{"Type": "bind", "Source": shared, "Target": _SHARED}] if shared else []
        client = self.client()
        request = {
            "Image": image,
            "Entrypoint": ["sh", "-c"],
            "Cmd": [_KEEP],
            "User": "0",
            "Hostname": name.replace("_", "-").replace(".", "-")[:63],
            "Labels": labels,
            "HostConfig": {"Mounts": mounts, "RestartPolicy": {"Name": "unless-stopped"}},
        }
        with self._words(f"making the container of {name}"):
            made = client.create_container_from_config(request, name=f"hakuriver-env-{name}")["Id"]
            try:
                client.start(made)
            except Exception as error:
                with contextlib.suppress(Exception):
                    client.remove_container(made, force=True, v=True)
                if "executable file not found" in str(error) or "no such file" in str(error):
                    raise UsageError(
                        f"{image} has no sh, so nothing can be prepared in it",
                        "start from an image with a shell",
                    ) from None
                raise
        return self.container(name)

    def start(self, name: str) -> EnvContainer:
        """One that a Host which was killed while it packed has left paused goes on."""
        container = self.container(name)
        if container.state == "paused":
            self._unpause(container)
        with self._words(f"starting {name}"):
            self.client().start(container.id)
        return self.container(name)

    def stop(self, name: str) -> EnvContainer:
        with self._words(f"stopping {name}"):
            self.client().stop(self.container(name).id, timeout=_STOP_SECONDS)
        return self.container(name)

    def remove(self, name: str) -> None:
        found = self.container(name)
        with self._words(f"removing the container of {name}"):
            self.client().remove_container(found.id, force=True, v=True)
        if found.image_name.startswith("hakuriver-env/"):
            self.remove_image(found.image_name)

    def recover(self, busy: Collection[str]) -> None:
        """Cleans up after a Host that was killed while it packed: helpers go, what was paused goes on.

        What the engine was doing for that Host may yet be done after this: packing looks again.
        """
        with self._words("cleaning up"):
            self._remove_helpers()
            for container in self.containers():
                if container.state == "paused" and container.environment not in busy:
                    self._unpause(container)

    def _remove_helpers(self) -> None:
        """Those of earlier lives."""
        labels = [f"{LABEL_CLUSTER}={self._cluster}", LABEL_HELPER]
        for each in self.client().containers(all=True, filters={"label": labels}):
            if each["Labels"][LABEL_HELPER] != LIFE:
                with contextlib.suppress(NotFoundError, ConflictError), self._words("removing a helper"):
                    # It may be going already.
                    self.client().remove_container(each["Id"], force=True, v=True)

    def _unpause(self, container: EnvContainer) -> None:
        """One that is not paused (any more) is left as it is."""
        try:
            with self._words(f"continuing {container.environment}"):
                self.client().unpause(container.id)
        except HakuRiverError as error:
            if "not paused" not in error.message and "not running" not in error.message:
                raise

    @contextlib.contextmanager
    def paused(self, container: EnvContainer) -> Iterator[None]:
        """Holds what runs in the container, so that what is read is of one moment."""
        with self._words(f"pausing {container.environment}"):
            state = self.client().inspect_container(container.id)["State"]
            # One that is paused was left so by a Host that was killed.
            if state["Running"] and not state["Paused"]:
                self.client().pause(container.id)
        if not state["Running"]:
            yield
            return
        try:
            yield
        finally:
            self._unpause(container)

    @contextlib.contextmanager
    def upper(self, container: EnvContainer) -> Iterator[Upper]:
        """What was changed in a container, read through a helper that is never started.

        The folder belongs to root and lies on the engine's machine: mounted into a container that only exists, it can
        be read over the engine's own interface, by whoever may use the engine.
        """
        client = self.client(_LONG_SECONDS)
        with self._words(f"reading the changes in {container.environment}"):
            self._remove_helpers()
            info = client.inspect_container(container.id)
            folder = info["GraphDriver"]["Data"]["UpperDir"]
            changes = client.diff(container.id) or []
            helper = client.create_container_from_config(
                {
                    "Image": info["Image"],
                    "Cmd": ["never"],
                    "NetworkDisabled": True,
                    "Labels": {LABEL_HELPER: LIFE, LABEL_CLUSTER: self._cluster},
                    "HostConfig": {
                        "NetworkMode": "none",
                        "Mounts": [
                            {"Type": "bind", "Source": folder, "Target": f"/{UPPER}", "ReadOnly": True}
                        ],
                    },
                }
            )["Id"]
            try:
                yield Upper(
                    self._entries(client, helper),
                    frozenset(change["Path"].lstrip("/") for change in changes if change["Kind"] == _REMOVED),
                    lambda path: self._content(client, helper, path),
                )
            finally:
                client.remove_container(helper, force=True, v=True)

    def _entries(self, client: Any, helper: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
        pieces, _ = client.get_archive(helper, f"/{UPPER}", chunk_size=_PIECE)
        prefix = f"{UPPER}/"
        with tarfile.open(fileobj=PieceReader(pieces), mode="r|", bufsize=_PIECE) as tar:  # type: ignore[call-overload]
            for info in tar:
                if not info.name.startswith(prefix):
                    continue
                file = tar.extractfile(info) if info.isreg() else None
                info.name = info.name.removeprefix(prefix).rstrip("/")
                if info.islnk():
                    info.linkname = info.linkname.removeprefix(prefix)
                yield info, file

    def _content(self, client: Any, helper: str, path: str) -> Iterator[bytes]:
        pieces, _ = client.get_archive(helper, f"/{UPPER}/{path}", chunk_size=_PIECE)
        with tarfile.open(fileobj=PieceReader(pieces), mode="r|", bufsize=_PIECE) as tar:  # type: ignore[call-overload]
            for info in tar:
                file = tar.extractfile(info)
                while file is not None and (piece := file.read(_PIECE)):
                    yield piece

    # Files and commands

    def read_file(self, container: EnvContainer, path: str) -> bytes | None:
        """A small file of the container, running or not; none when it is not there."""
        from docker.errors import NotFound  # noqa: PLC0415

        with self._words(f"reading {path}"):
            try:
                pieces, _ = self.client().get_archive(container.id, path, chunk_size=_PIECE)
            except NotFound:
                return None
            with tarfile.open(fileobj=PieceReader(pieces), mode="r|") as tar:  # type: ignore[call-overload]
                for info in tar:
                    file = tar.extractfile(info)
                    return file.read() if file is not None else None
        return None

    def execs(self, container: EnvContainer) -> ContainerExecs:
        """To run programs in a container that runs."""
        return ContainerExecs(self.client, container.id, self._words)

    def download(self, name: str, path: str) -> Iterator[bytes]:
        """A path of the container as a tar."""
        container = self.container(name)
        try:
            with self._words(f"{path} in {name}"):
                pieces, _ = self.client(_LONG_SECONDS).get_archive(container.id, path, chunk_size=_PIECE)
        except NotFoundError:
            raise NotFoundError(f"there is no {path} in {name}", "check the path") from None
        return cast("Iterator[bytes]", pieces)

    def upload(self, name: str, path: str, pieces: Iterator[bytes]) -> None:
        """Unpacks a tar into a folder of the container."""
        container = self.container(name)
        try:
            with self._words(f"{path} in {name}"):
                self.client(_LONG_SECONDS).put_archive(container.id, path, pieces)
        except NotFoundError:
            raise NotFoundError(
                f"there is no folder {path} in {name}",
                f"make it: `hakuriver env exec {name} -- mkdir -p {path}`",
            ) from None

    # Images

    def image(self, reference: str) -> dict[str, Any]:
        with self._words(f"the image {reference}"):
            return cast("dict[str, Any]", self.client().inspect_image(reference))

    def has_image(self, reference: str) -> bool:
        try:
            self.image(reference)
        except NotFoundError:
            return False
        return True

    def names_of(self, reference: str) -> list[str]:
        """What an image is called here; nothing, where it is not."""
        try:
            return [*(self.image(reference).get("RepoTags") or [])]
        except NotFoundError:
            return []

    def pull(self, reference: str) -> None:
        """Raises HakuRiverError in words when it cannot be had."""
        name, _, tag = reference.partition("@") if "@" in reference else _split_tag(reference)
        hint = "check the name and the network, or start from --rootfs, --archive or --debootstrap"
        try:
            with self._words(f"{reference} cannot be pulled"):
                lines = self.client(_LONG_SECONDS).pull(name, tag=tag or "latest", stream=True, decode=True)
                problem = next((line["error"] for line in lines if "error" in line), None)
        except UnreachableError:
            raise
        except HakuRiverError as error:
            raise NotFoundError(error.message, hint) from None
        if problem is not None:
            raise NotFoundError(f"{reference} cannot be pulled: {_line(problem)}", hint)

    def load(self, archive: Iterable[bytes]) -> None:
        with self._words("loading an image"):
            for line in self.client(_LONG_SECONDS).load_image(iter(archive), quiet=True):
                if "error" in line:
                    raise HakuRiverError(
                        f"the engine cannot load it: {_line(line['error'])}", "check the archive"
                    )

    def import_root(self, tar: Iterator[bytes], tag: str) -> None:
        """Makes an image of a root file system."""
        repository, _, version = tag.rpartition(":")
        with self._words("importing a root file system"):
            client = self.client(_LONG_SECONDS)
            response = client._post(  # noqa: SLF001 - the SDK's own import reads a stream whole into memory
                client._url("/images/create"),  # noqa: SLF001
                data=tar,
                params={
                    "fromSrc": "-",
                    "repo": repository,
                    "tag": version,
                    "changes": [f"ENV PATH={_PATH}", 'CMD ["/bin/sh"]'],
                },
                headers={"Content-Type": "application/tar"},
                timeout=_LONG_SECONDS,
            )
            text = client._result(response)  # noqa: SLF001
            if '"error"' in text:
                raise UsageError(
                    f"it is not a root file system: {_line(text.rpartition('error')[2])}",
                    "give a tar of a whole system, such as `debootstrap` or `docker export` makes",
                )

    def build(self, context: IO[bytes], tag: str) -> None:
        """Builds the Dockerfile of a context (a tar)."""
        hint = "mend the Dockerfile"
        try:
            with self._words("the build failed"):
                lines = self.client(_LONG_SECONDS).build(
                    fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True
                )
                problem = next((line["error"] for line in lines if "error" in line), None)
        except UnreachableError:
            raise
        except HakuRiverError as error:
            raise UsageError(error.message, hint) from None
        if problem is not None:
            raise UsageError(f"the build failed: {_line(problem)}", hint)

    def commit(self, container: EnvContainer, tag: str) -> None:
        repository, _, version = tag.rpartition(":")
        with self._words(f"committing {container.environment}"):
            self.client(_LONG_SECONDS).commit(container.id, repository=repository, tag=version)

    def save(self, reference: str) -> Generator[bytes]:
        """The archive of an image, as `docker save` writes it."""
        with self._words(f"reading the image {reference}"):
            return cast(
                "Generator[bytes]", self.client(_LONG_SECONDS).get_image(reference, chunk_size=_PIECE)
            )

    def tag(self, image: str, tag: str) -> None:
        repository, _, version = tag.rpartition(":")
        with self._words(f"tagging {tag}"):
            self.client().tag(image, repository, version, force=True)

    def remove_image(self, reference: str) -> None:
        """Removes a name of an image, unless something uses it."""
        with contextlib.suppress(HakuRiverError), self._words(f"removing {reference}"):
            self.client().remove_image(reference)


_REMOVED = 2
"""Kind of a change that is a removal: ContainerChanges in the API's reference."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _container(found: dict[str, Any]) -> EnvContainer:
    labels = found["Labels"]
    return EnvContainer(
        id=found["Id"],
        environment=labels[LABEL_ENVIRONMENT],
        owner=labels.get(LABEL_OWNER, ""),
        image=found["ImageID"],
        image_name=found["Image"],
        state=found["State"],
    )


def _split_tag(reference: str) -> tuple[str, str, str]:
    name, colon, tag = reference.rpartition(":")
    return (name, colon, tag) if colon and "/" not in tag else (reference, "", "")


def _line(text: object) -> str:
    return " ".join(str(text).split())[:500]


def _away(error: Exception) -> UnreachableError:
    text = _line(error)
    if "Permission" in text:
        return UnreachableError(
            "the Host may not use the Docker engine",
            "put the Host's user into the group docker and restart it",
        )
    return UnreachableError(
        f"no Docker engine answers on the Host ({text[:160]})", "install and start one on the Host's machine"
    )

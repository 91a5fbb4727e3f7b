"""`hakuriver cluster bundle`: one folder with all that a cluster without internet installs."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hakuriver.errors import ConflictError, HakuRiverError, UsageError
from hakuriver.version import __version__
from hakuriver_cli.deploy import bundle_apt, content
from hakuriver_cli.deploy.port import check_installed
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.output import Format, Printer
from hakuriver_cli.progress import Progress

_PYTHONS = ("3.11", "3.12", "3.13")


def bundle(
    directory: Annotated[
        Path, Parameter(name="DIR", help="Folder to fill; it must be empty or not be there.")
    ],
    /,
    *,
    wheel: Annotated[
        Path | None, Parameter(help="HakuRiver's wheel; without it, that of this installation.")
    ] = None,
    python: Annotated[
        tuple[str, ...], Parameter(help="A Python version that nodes have, such as 3.11; may be repeated.")
    ] = _PYTHONS,
    machine: Annotated[
        str | None, Parameter(help="What nodes are, x86_64 or aarch64; like this machine when left out.")
    ] = None,
    release: Annotated[
        tuple[Literal["bookworm", "trixie", "jammy", "noble"], ...],
        Parameter(help="A release that nodes have; like this machine when left out; may be repeated."),
    ] = (),
    package: Annotated[
        tuple[str, ...],
        Parameter(help="A Debian package to take along beside those that the roles need; may be repeated."),
    ] = (),
    no_packages: Annotated[bool, Parameter(help="No Debian packages: nodes have theirs already.")] = False,
    common: Common = COMMON,
) -> None:
    """Collect all that a cluster without internet needs: HakuRiver, its libraries, and Debian packages.

    Run it on a machine with internet. Packages for nodes like that machine come from its own sources; for others, named
    by --release and --machine, from those of Debian and Ubuntu. That takes apt, and the keys that they are signed with.
    """
    check_installed()
    folder = directory.expanduser().absolute()
    _require_empty(folder)
    _require_pip()
    printer = Printer(common.output or Format.TABLE)
    with Progress(printer.err) as progress:
        bundler = _Bundler(folder, machine or platform.machine(), python, progress.update)
        bundler.fill(wheel, () if no_packages else _releases(release), package)
    printer.say(f"install from it: hakuriver cluster deploy --bundle {directory}")
    printer.out.write(f"{folder}\n")


class _Bundler:
    def __init__(
        self, folder: Path, machine: str, pythons: tuple[str, ...], tell: Callable[[str], None]
    ) -> None:
        from hakuriver_cli.deploy import bundle_plan  # noqa: PLC0415  (needs what is installed with Ansible)

        self._plan = bundle_plan
        self._folder = folder
        self._machine = machine
        self._pythons = pythons
        self._tell = tell

    def fill(self, wheel: Path | None, releases: tuple[str, ...], extra: tuple[str, ...]) -> None:
        """Into a folder beside it first: what stands under the name is whole."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-", dir=self._folder.parent))
        try:
            wheels = part / self._plan.WHEELS
            wheels.mkdir()
            self._own(wheel, wheels)
            for python in self._pythons:
                self._tell(f"fetching the libraries for Python {python}")
                self._libraries(python, wheels)
            for release in releases:
                self._packages(release, part / self._plan.PACKAGES / release, extra)
            text = self._plan.readme(__version__, self._pythons, self._machine, releases)
            (part / "README.md").write_text(text, "utf-8")
            (part / "SHA256SUMS").write_text(sums(part), "ascii")
            part.chmod(0o755)
            if self._folder.is_dir():
                self._folder.rmdir()
            part.rename(self._folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _own(self, wheel: Path | None, wheels: Path) -> None:
        self._tell("taking HakuRiver's own wheel")
        checkout = content.checkout()
        if wheel is not None:
            shutil.copy2(_file(wheel), wheels)
        elif checkout is not None:
            _run(self._plan.own_wheel(checkout, wheels))
        else:
            from hakuriver_cli.deploy.own_wheel import repacked  # noqa: PLC0415

            repacked(wheels)

    def _libraries(self, python: str, wheels: Path) -> None:
        for lock in ("runtime", "pip"):
            entries = self._plan.requirements(content.lock_file(lock).read_text("utf-8"))
            ready, source = self._plan.chosen(entries, python, self._machine)
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "requirements.txt"
                path.write_text("".join(f"{entry.text}\n" for entry in ready), "utf-8")
                _run(self._plan.download(path, wheels, python, self._machine))
                if source:
                    path.write_text("".join(f"{entry.text}\n" for entry in source), "utf-8")
                    _run(self._plan.build(path, wheels))

    def _packages(self, release: str, folder: Path, extra: tuple[str, ...]) -> None:
        self._tell(f"fetching Debian packages for {release}")
        folder.mkdir(parents=True)
        own = release == _own_release() and self._machine == platform.machine()
        with tempfile.TemporaryDirectory() as name:
            given = self._nothing(Path(name), release, own_sources=own)
            every = bundle_apt.required(_run(bundle_apt.available(given)))
            everywhere = self._needed(every, given)
            wanted = bundle_apt.wanted(release, extra)
            found = self._needed(wanted, given) - everywhere
            _run(bundle_apt.fetch(sorted(found), given), folder)
            server = folder / self._plan.SERVER
            server.mkdir()
            more = self._needed([*wanted, *bundle_apt.SERVER_PACKAGES], given) - everywhere - found
            if more:
                _run(bundle_apt.fetch(sorted(more), given), server)

    def _nothing(self, root: Path, release: str, *, own_sources: bool) -> list[str]:
        """The options by which apt sees a machine that has nothing."""
        (root / "status").touch()
        for name in bundle_apt.folders():
            (root / name).mkdir(parents=True)
        given = bundle_apt.options(root, self._machine, own_sources=own_sources)
        if not own_sources:
            _require_keyring(release)
            (root / "sources.list").write_text(bundle_apt.sources(release, self._machine), "ascii")
            _run(bundle_apt.update(given))
        return given

    @staticmethod
    def _needed(packages: Sequence[str], given: list[str]) -> set[tuple[str, str]]:
        """The packages and all that they need, with versions."""
        return set(bundle_apt.files_of(_run(bundle_apt.closure(packages, given))))


def sums(folder: Path) -> str:
    """What `sha256sum --check` reads."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder)}\n")
    return "".join(lines)


def _run(argv: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        argv,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        what = "pip" if "pip" in argv else argv[0]
        raise HakuRiverError(
            f"{what} failed: {lines[-1].removeprefix('ERROR: ')}",
            "check the way to the internet, then start again: nothing half made is left",
        )
    return done.stdout


def _releases(named: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are named, else that of this machine; none where there is no apt to ask."""
    if shutil.which("apt-get") is None:
        if named:
            raise HakuRiverError(
                "there is no apt here to fetch packages with", "make the bundle on a Debian or Ubuntu"
            )
        return ()
    own = _own_release()
    return named or ((own,) if own else ())


def _own_release() -> str | None:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME")
    except OSError:
        return None


def _require_keyring(name: str) -> None:
    release = bundle_apt.RELEASES.get(name)
    if release is None:
        raise UsageError(f"where the packages of {name} are is not known", "give --release, or --no-packages")
    if not Path(release.keyring).is_file():
        raise HakuRiverError(
            f"the keys that packages of {name} are signed with are not here: {release.keyring}",
            f"install the package {release.keyring_package}, or make the bundle on a machine like the nodes",
        )


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(f"{folder} is there and not empty", "name another folder, or remove it")


def _require_pip() -> None:
    if find_spec("pip") is None:
        raise HakuRiverError("this Python has no pip", "install it: `python3 -m ensurepip`")


def _file(path: Path) -> Path:
    found = path.expanduser().absolute()
    if not found.is_file():
        raise UsageError(f"there is no {found}", "check the path")
    return found

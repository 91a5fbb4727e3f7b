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
from typing import Annotated

from cyclopts import Parameter

from hakuriver.errors import ConflictError, HakuRiverError, UsageError
from hakuriver.version import __version__
from hakuriver_cli.deploy import content
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
    package: Annotated[
        tuple[str, ...],
        Parameter(help="A Debian package to take along beside those that the roles need; may be repeated."),
    ] = (),
    no_packages: Annotated[bool, Parameter(help="No Debian packages: nodes have theirs already.")] = False,
    common: Common = COMMON,
) -> None:
    """Collect all that a cluster without internet needs: HakuRiver, its libraries, and Debian packages.

    Run it on a machine with internet. Debian packages are of that machine's own release and architecture: where nodes
    have another, make a bundle on a machine like them, and put its folder below `packages` beside this one's.
    """
    check_installed()
    folder = directory.expanduser().absolute()
    _require_empty(folder)
    _require_pip()
    printer = Printer(common.output or Format.TABLE)
    with Progress(printer.err) as progress:
        bundler = _Bundler(folder, machine or platform.machine(), python, progress.update)
        bundler.fill(wheel, () if no_packages else package, no_packages)
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

    def fill(self, wheel: Path | None, extra: tuple[str, ...], no_packages: bool) -> None:
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
            release = None if no_packages else self._packages(part, extra)
            text = self._plan.readme(__version__, self._pythons, self._machine, release)
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

    def _packages(self, part: Path, extra: tuple[str, ...]) -> str | None:
        """The packages' release; None where there is no apt, or the nodes are of another architecture."""
        release = _release()
        if release is None or shutil.which("apt-get") is None or self._machine != platform.machine():
            return None
        self._tell("fetching Debian packages")
        folder = part / self._plan.PACKAGES / release
        folder.mkdir(parents=True)
        everywhere = self._needed(self._plan.required(_run(self._plan.available())))
        found = self._needed([*self._plan.DEBIAN_PACKAGES, *extra])
        _run(self._plan.fetch(sorted(found - everywhere)), folder)
        return release

    def _needed(self, packages: Sequence[str]) -> set[tuple[str, str]]:
        """The packages and all that they need, with versions."""
        with tempfile.TemporaryDirectory() as name:
            empty = Path(name)
            (empty / "status").touch()
            (empty / "archives" / "partial").mkdir(parents=True)
            return set(self._plan.files_of(_run(self._plan.closure(packages, empty))))


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


def _release() -> str | None:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME")
    except OSError:
        return None


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

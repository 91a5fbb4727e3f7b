"""Our wheel, made again from what is installed: whoever installed HakuRiver need not have kept the file.

A wheel is a zip of the installed files with a list of them; what pip added when it installed (scripts, compiled files,
its own notes) is left out, and the list written anew. The same installation always gives the same bytes, so that nodes
which have it already see no change.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import Distribution, PackagePath, distribution
from pathlib import Path

from hakuriver.errors import HakuRiverError

DISTRIBUTION = "hakuriver-cluster"
_OF_PIP = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


def repacked(folder: Path) -> Path:
    """Writes the wheel into the folder. Raises HakuRiverError when this is no plain installation."""
    found = distribution(DISTRIBUTION)
    files = [path for path in found.files or [] if _belongs(path)]
    if not any(path.parts[0] == "hakuriver_cli" for path in files):
        raise HakuRiverError(
            "HakuRiver's own wheel is not known here", "give it with --wheel, or work in a checkout"
        )
    info = next(path.parts[0] for path in files if path.name == "METADATA")
    target = folder / f"{info.removesuffix('.dist-info')}-{_tag(found)}.whl"
    record = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files, key=lambda path: (path.parts[0] == info, path.as_posix())):
            content = Path(str(found.locate_file(path))).read_bytes()
            record.append(f"{path.as_posix()},sha256={_digest(content)},{len(content)}\n")
            _add(archive, path.as_posix(), content)
        record.append(f"{info}/RECORD,,\n")
        _add(archive, f"{info}/RECORD", "".join(record).encode())
    return target


def _belongs(path: PackagePath) -> bool:
    return not (
        path.parts[0] == ".."
        or path.is_absolute()
        or "__pycache__" in path.parts
        or (path.parts[0].endswith(".dist-info") and path.name in _OF_PIP)
    )


def _tag(found: Distribution) -> str:
    lines = (found.read_text("WHEEL") or "").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("Tag: ")), "py3-none-any")


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = _MODE
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)

"""Makes a wheelhouse whose HakuRiver installs and does not run: break_wheel.py SOURCE TARGET host|runner.

`host` migrates the database and then does not serve; `runner` does not start on node1. All else is as in the source.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

_MIGRATION = '''"""A migration that is regretted."""

from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    op.execute("CREATE TABLE regretted (id INTEGER)")
'''
_RUNNER = """
import socket
if socket.gethostname() == "node1":
    sys.exit("hakuriver.runner: broken for the test")
"""


def main() -> None:
    source, target, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.whl"):
        old.unlink()
    for wheel in source.glob("*.whl"):
        if wheel.name.startswith("hakuriver_cluster-"):
            _break(wheel, target / wheel.name, kind)
        else:
            os.link(wheel, target / wheel.name)


def _break(wheel: Path, target: Path, kind: str) -> None:
    with zipfile.ZipFile(wheel) as old:
        files = {name: old.read(name) for name in old.namelist()}
    if kind == "host":
        _break_host(files)
    else:
        _change(files, "hakuriver_agent/__main__.py", "import sys\n", f"import sys\n{_RUNNER}")
    with zipfile.ZipFile(target, "w") as new:
        for name, content in files.items():
            new.writestr(zipfile.ZipInfo(name), content)


def _break_host(files: dict[str, bytes]) -> None:
    folder = "hakuriver_host/db/migrations/versions/"
    head = max(name for name in files if name.startswith(folder)).removeprefix(folder).partition("_")[0]
    files[f"{folder}9999_regretted.py"] = _MIGRATION.format(head=head).encode()
    _change(files, "hakuriver_host/db/migration.py", f'HEAD = "{head}"', 'HEAD = "9999"')
    _change(
        files,
        "hakuriver_host/main.py",
        "    share = Share(",
        '    raise StorageError("broken for the test")\n    share = Share(',
    )


def _change(files: dict[str, bytes], name: str, old: str, new: str) -> None:
    text = files[name].decode()
    if old not in text:
        sys.exit(f"{name} does not hold {old!r}: correct {Path(__file__).name}")
    files[name] = text.replace(old, new, 1).encode()


main()

"""`python -m hakuriver_host.state backup FILE | restore FILE [--force]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hakuriver.config import load
from hakuriver.errors import HakuRiverError
from hakuriver_host.state.backup import backup
from hakuriver_host.state.restore import restore


def main(argv: Sequence[str] | None = None) -> int:
    """Does it; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load(arguments.config)
        if arguments.action == "backup":
            backup(settings, arguments.file, _say)
        else:
            restore(settings, arguments.file, _say, force=arguments.force)
    except HakuRiverError as error:
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        return error.exit_code
    except OSError as error:
        _say(f"error: {error.filename or arguments.file}: {error.strerror or error}")
        _say("hint: check the path, its permissions and the disk")
        return 1
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hakuriver state", description="Backup and restore of what a Host keeps."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("backup", "restore"):
        action = actions.add_parser(name)
        action.add_argument("file", type=Path, metavar="FILE")
        action.add_argument("-c", "--config", type=Path, help="configuration file (TOML)")
        if name == "restore":
            action.add_argument("--force", action="store_true", help="put aside a database that is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())

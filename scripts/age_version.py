"""Lets a tree call itself of the minor version before: age_version.py VERSION_FILE."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main() -> None:
    path = Path(sys.argv[1])
    text = path.read_text("utf-8")
    found = re.search(r'(__version__ = "\d+\.)(\d+)\.[^"]+"', text)
    if found is None or found[2] == "0":
        sys.exit(f"{path} has no minor version before: correct {Path(__file__).name}")
    path.write_text(f'{text[: found.start()]}{found[1]}{int(found[2]) - 1}.0"{text[found.end() :]}', "utf-8")


main()

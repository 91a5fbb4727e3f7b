"""Tells what the Host's database is: host_database.py CONFIG, run by a HakuRiver's own Python.

Four lines: `sqlite` or `postgresql`; the revision that it has, or nothing where there is none yet; the one that this
HakuRiver migrates it to; the file of an SQLite database, or nothing.
"""

import sys
from pathlib import Path

from hakuriver.config import load
from hakuriver_host.db.migration import HEAD, file_revision
from hakuriver_host.state.databases import postgresql_revision, sqlite_file

settings = load(Path(sys.argv[1]))
file = sqlite_file(settings)
if file is None:
    found = ["postgresql", postgresql_revision(settings) or "", HEAD, ""]
else:
    found = ["sqlite", (file_revision(file) if file.exists() else None) or "", HEAD, str(file)]
print(*found, sep="\n")

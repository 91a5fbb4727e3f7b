"""Packs one environment in a process of its own, to be killed: `python -m support.packing ROOT STATE CLUSTER NAME`.

It says `ready` when everything is loaded, packs, and says `done`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hakuriver.store import Catalog
from hakuriver_host.services.environments.engine import HostEngine
from hakuriver_host.services.environments.packing import Packer


def main(root: str, state: str, cluster: str, name: str) -> None:
    engine = HostEngine("", cluster)
    engine.kind()
    packer = Packer(engine, Catalog(Path(root)), Path(state))
    print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
    packer.pack(name, "tester", "")
    print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])

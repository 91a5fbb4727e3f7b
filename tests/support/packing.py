"""Packs an environment, again and again, each time in a process of its own, to be killed.

`python -m support.packing ROOT MEMORY CLUSTER NAME` loads everything once, so that a process costs a fork alone. For
each line of input it says `begun PID`, packs, and says `ended CODE`.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import docker  # noqa: F401 - loaded before the processes are made

from hakuriver.store import Catalog
from hakuriver_host.services.environments.engine import HostEngine
from hakuriver_host.services.environments.packing import Packer


def main(root: str, memory: str, cluster: str, name: str) -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_pack(root, memory, cluster, name))
        _say(f"begun {pid}")
        _, status = os.waitpid(pid, 0)
        _say(f"ended {os.waitstatus_to_exitcode(status)}")


def _pack(root: str, memory: str, cluster: str, name: str) -> int:
    try:
        Packer(HostEngine("", cluster), Catalog(Path(root)), Path(memory)).pack(name, "tester", "")
    except Exception:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - whoever started it waits for this


if __name__ == "__main__":
    main(*sys.argv[1:])

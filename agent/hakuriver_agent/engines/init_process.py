"""What the first process of a container would do with SIGTERM, read from the kernel (proc_pid_status(5))."""

from __future__ import annotations

import signal
from pathlib import Path

_TERM = 1 << (signal.SIGTERM - 1)


def ignores_sigterm(pid: int, proc: Path = Path("/proc")) -> bool:
    """True when this is the first process of a PID namespace, with SIGTERM left at its default.

    One that ignores SIGTERM by its own choice may want the grace to finish something.
    False where that cannot be told, as with an engine on another machine.
    """
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    numbers = fields.get("NSpid", [])
    is_first = len(numbers) > 1 and numbers[-1] == "1"
    chosen = [int(fields[name][0], 16) & _TERM for name in ("SigCgt", "SigIgn") if fields.get(name)]
    return is_first and not any(chosen)

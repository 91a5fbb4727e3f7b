"""`make bench`, or `python -m bench [containers] [processes] [scale] [idle] [environments] [vps] [placement] [deploy]`."""

from __future__ import annotations

import compileall
import signal
import sys
import tempfile
from pathlib import Path

# The daemons, links and waits of the tests serve here too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench import containers, deploy, environments, idle, placement, processes, scale, vps
from bench.report import show

ROOT = Path(__file__).resolve().parent.parent
MEASUREMENTS = (containers, processes, scale, idle, environments, vps, placement, deploy)


def main() -> int:
    known = {module.NAME: module for module in MEASUREMENTS}
    wanted = sys.argv[1:] or list(known)
    if unknown := set(wanted) - set(known):
        print(
            f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    # Ended from outside it cleans up all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # As it is where it was installed: also where the environment keeps Python from writing what it compiles.
    for part in ("sdk", "agent", "host", "cli"):
        compileall.compile_dir(ROOT / part, quiet=1)
    short = []
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="hakuriver-bench-") as folder:
            figures = known[name].measure(Path(folder))
        show(known[name].TITLE, figures)
        short += [figure.name for figure in figures if figure.reached is False]
    if short:
        print(f"{len(short)} short of the aim: {'; '.join(short)}", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())

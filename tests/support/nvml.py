"""An NVIDIA driver's library that tells what a test lets it: `fake_nvml.c`, found as the real one is."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("fake_nvml.c")
FIRST_MINOR = 40
"""Of the device files, so that they are not those of real GPUs; `fake_nvml.c` counts from there too."""
_LOOKS = """
import json, sys
from pathlib import Path
from hakuriver_agent.devices.gpu import GpuReader
reader = GpuReader(Path(sys.argv[1]))
for line in sys.stdin:
    Path(sys.argv[2]).write_text(json.loads(line))
    told = reader.read()
    print(json.dumps({"gpus": [gpu.model_dump() for gpu in told.gpus], "minors": told.minors, "problem": told.problem}),
          flush=True)
"""


def why_not() -> str | None:
    """Why no such library can be here, or none when it can."""
    if shutil.which("cc") is None:
        return "there is no C compiler (gcc, libc6-dev)"
    return None if os.geteuid() == 0 else "only root can make device files"


class FakeDriver:
    """Compiled anew into a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / "gpus"
        self.pci = folder / "pci"
        self.pci.mkdir()
        library = folder / "libnvidia-ml.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self.says()

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self._folder), "FAKE_NVML": str(self._state)}

    def says(self, *lines: str) -> None:
        """What it tells from now on; the lines are those of `fake_nvml.c`."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        fresh.replace(self._state)

    def readings(self, *states: Sequence[str]) -> list[dict[str, Any]]:
        """What one reader, in a process of its own, finds at each of these states, one after the other."""
        told = "".join(json.dumps("".join(f"{line}\n" for line in lines)) + "\n" for lines in states)
        done = subprocess.run(
            [sys.executable, "-c", _LOOKS, self.pci, self._state],
            input=told,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, **self.environment},
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@contextmanager
def device_files(count: int) -> Iterator[list[Path]]:
    """Device files as GPUs have them, which lead nowhere (null(4))."""
    files = [Path(f"/dev/nvidia{FIRST_MINOR + number}") for number in range(count)]
    for file in files:
        file.unlink(missing_ok=True)
        os.mknod(file, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    try:
        yield files
    finally:
        for file in files:
            file.unlink(missing_ok=True)

"""`python -m hakuriver_host`."""

from __future__ import annotations

import sys

# None makes an import fail at once. httpx and structlog load rich and pygments when these are installed, for what a
# daemon never shows: 5 MB. httpcore looks for sniffio at each request, and not finding it is a search of the disk.
for name in ("rich", "sniffio"):
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]

from hakuriver_host.main import main  # noqa: E402 - after the line above

sys.exit(main())

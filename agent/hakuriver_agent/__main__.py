"""`python -m hakuriver_agent`."""

from __future__ import annotations

import sys

# httpx and structlog load rich and pygments when these are installed, for what a daemon never shows: 5 MB less.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # none is how an import is made to fail

from hakuriver_agent.main import exit_now, main  # noqa: E402 - after the line above

exit_now(main())

"""`python -m hakuriver_agent`."""

from __future__ import annotations

from hakuriver_agent.main import exit_now, main

exit_now(main())

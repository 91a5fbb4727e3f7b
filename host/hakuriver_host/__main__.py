"""`python -m hakuriver_host`."""

from __future__ import annotations

import sys

from hakuriver_host.main import main

sys.exit(main())

"""When a container that ends unasked is started again, and when no more: the pure rule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
STEADY_SECONDS = 60.0
"""It ran well when it ran as long."""
MOST = 10
"""Quick ends, one after the other, after which it is given up."""


@dataclass(slots=True)
class Again:
    """Of one container, since it was last started by the Runner or found running."""

    quick: int = 0
    seen: datetime | None = None

    def pause(self, started: datetime, ended: datetime) -> float | None:
        """Seconds to wait before it is started once more; none when it is given up.

        At once after it ran well; else twice as long each time. An end that was seen before means that the start after it
        has failed.
        """
        anew, self.seen = ended != self.seen, ended
        if anew and (ended - started).total_seconds() >= STEADY_SECONDS:
            self.quick = 0
            return 0.0
        self.quick += 1
        return None if self.quick > MOST else min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (self.quick - 1))

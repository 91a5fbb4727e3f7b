"""What users may do, in three sizes."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    """Everything."""
    USER = "user"
    """Submits tasks, and controls and reads those that are theirs; sees the queue."""
    VIEWER = "viewer"
    """Sees nodes and the queue."""

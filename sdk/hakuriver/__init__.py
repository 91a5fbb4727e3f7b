"""HakuRiver: a few machines used as one computer. This package is what all of its parts share."""

from __future__ import annotations

from hakuriver.version import __version__

__all__ = ["__version__"]

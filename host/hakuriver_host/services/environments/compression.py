"""Reading what may be compressed: uploaded root file systems, and layers in archives of images."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import zstandard

from hakuriver.pieces import PieceReader, pieces_of

DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What reading raises when the stream is cut off or is not what its beginning says."""


def uncompressed(file: IO[bytes], head: bytes | None = None) -> Iterator[bytes]:
    """The content of a file by its first bytes: gzip, bzip2, xz or zstd, of one member or many; all else as it is.

    `head` is what has been read of a file that cannot be read again. Raises one of `DAMAGED`.
    """
    if head is None:
        head = file.read(6)
    source: Any = PieceReader(itertools.chain([head], pieces_of(file)))
    if head.startswith(b"\x1f\x8b"):
        source = gzip.GzipFile(fileobj=source)
    elif head.startswith(b"BZh"):
        source = bz2.BZ2File(source)
    elif head.startswith(b"\xfd7zXZ\0"):
        source = lzma.LZMAFile(source)  # noqa: SIM115 - closing it closes nothing
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        source = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    return pieces_of(cast("IO[bytes]", source))

"""Windows of cloud-optimised GeoTIFFs, read directly: one request for a header, few for pixels.

Why not GDAL: a range that comes back broken is asked for again wherever it breaks, what a window
costs is known before it is read, and no thread waits for another. Only tiled GeoTIFFs of one
integer band, as archives publish them; anything else is `NotDirectError` and is read through GDAL.
"""

from cube.cog.cache import KEPT_BYTES
from cube.cog.errors import FileBrokenError, FileUnreachableError, NotDirectError
from cube.cog.fetch import (
    TRAFFIC,
    Fetcher,
    Meter,
    Signer,
    Unsigned,
)
from cube.cog.header import FIRST_BYTES, Cog, Headers, Level, read_header
from cube.cog.read import PIECES, Piece, pieces, read_window
from cube.patience import Patience, allow_fetching, stop_fetching

__all__ = [
    "FIRST_BYTES",
    "KEPT_BYTES",
    "PIECES",
    "TRAFFIC",
    "Cog",
    "Fetcher",
    "FileBrokenError",
    "FileUnreachableError",
    "Headers",
    "Level",
    "Meter",
    "NotDirectError",
    "Patience",
    "Piece",
    "Signer",
    "Unsigned",
    "allow_fetching",
    "pieces",
    "read_header",
    "read_window",
    "stop_fetching",
]

"""Two cubes in, how far they agree out.

`overlap` says what they share, `tally_piece` counts one piece of it in exact integers, and
`Agreement` is what the counts mean. Pieces may be cut anyhow and added in any order: no digit of
the result depends on it.
"""

from cube.compare.agreement import Agreement, ClearAgreement
from cube.compare.overlap import Overlap, Piece, overlap
from cube.compare.stores import check_complete, tally_piece
from cube.compare.tally import Tally

__all__ = [
    "Agreement",
    "ClearAgreement",
    "Overlap",
    "Piece",
    "Tally",
    "check_complete",
    "overlap",
    "tally_piece",
]

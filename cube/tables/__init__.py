"""Tables of pixels, as Earth Engine exports them, in; a dated stack and samples out.

A table has one row a pixel and date: bands as counts, a day, a point. `read` gives its rows from
CSV, gzip or Parquet in bounded memory, `spill` keeps them on the disk, `lattice` puts each on the
pixel of Sentinel-2's lattice that its point falls into. Tables of patches become a `stack` of dates
that is built from like any other; tables of ground truth (with a column `Class`) become `truth`:
monthly samples. Nothing is shifted, filled or averaged over pixels, and what is left out is counted.
"""

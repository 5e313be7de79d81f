"""Earth Engine: composites made on its servers, asked for window by window on the cube's grid.

`access` says whom to ask and travels to workers; `session` (over `client`, `transport`,
`credentials`, `throttle`, `giveup`) asks, one per process; `requests` is the arithmetic of what fits
into one request, `sizes` what of that was too large, `pixels` what goes out and comes back, `exports` how Earth Engine is told to write files.
`scenes` finds images once, `composite` and `expression` say what is made of them, `source` and
`exported` give the cube its composites. Only this package knows the client library `ee`, which is
optional: importing the package does not import it, `session` does, by way of `installed`.
"""

from cube.earthengine.access import HIGH_VOLUME, Access

__all__ = ["HIGH_VOLUME", "Access"]

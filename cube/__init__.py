"""The cube: grid, pixels, stores. Scenes in, a Zarr cube (time, band, y, x) and samples out."""

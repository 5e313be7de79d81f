"""Tables of labelled sequences in, samples out: any sensor, any number of steps, no cube needed.

A long table has one row a series and date, a wide one a row a series and a column a band and step.
`read_series` reads either, `align` puts the steps of all series on one calendar, and
`series_dataset` makes the samples that `cube.samplestore` keeps.
"""

from cube.series.align import AlignedSeries, align, align_to
from cube.series.options import SeriesOptions
from cube.series.read import is_series_table, read_series
from cube.series.samples import series_dataset

__all__ = [
    "AlignedSeries",
    "SeriesOptions",
    "align",
    "align_to",
    "is_series_table",
    "read_series",
    "series_dataset",
]

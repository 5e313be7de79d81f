"""What can go wrong with one raster file: it is broken, it is out of reach, or it is not for us."""


class FileBrokenError(Exception):
    """The file is missing, denied, cut off or corrupt: asking again would not help."""


class FileUnreachableError(Exception):
    """The file could not be fetched now, however often it was asked for."""


class NotDirectError(Exception):
    """The file may be fine, but it is of a kind that is read through GDAL: JPEG 2000, strips …"""

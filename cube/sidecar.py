"""Classes and pixel counts in, the `.aux.xml` out that tells GDAL and QGIS the names in a map."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from cube.mapstore import UNCLASSIFIED, MapClass

# Types and usages of raster attribute columns are enumerations of GDAL's RAT API:
# GFT_Integer 0, GFT_String 2; GFU_PixelCount 1, _Name 2, _MinMax 5, _Red 6 … _Alpha 9.
_COLUMNS = (
    ("Value", 0, 5),
    ("Class", 2, 2),
    ("Count", 1, 1),
    ("Red", 0, 6),
    ("Green", 0, 7),
    ("Blue", 0, 8),
    ("Alpha", 0, 9),
)

# what XML 1.0 cannot hold, even escaped
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def one_line(text: str) -> str:
    """Return untrusted text as one line that XML can hold: no control characters, single spaces."""
    return " ".join(_FORBIDDEN.sub("\ufffd", text).split())


def rgb(colour: str) -> tuple[int, int, int]:
    """Return `#rrggbb` as three numbers 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def class_names_xml(classes: Sequence[MapClass], counts: Mapping[int, int]) -> bytes:
    """Return GDAL's auxiliary metadata of a one-band class map: category names and attribute table.

    `counts` are pixels by map value, 0 (unclassified) among them. Names are untrusted text: they
    are escaped, put on one line, and lose characters that XML cannot hold.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    names = {UNCLASSIFIED: "unclassified"} | {item.value: one_line(item.name) for item in classes}
    categories = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(names) + 1):  # the list is by position: gaps are blank
        ElementTree.SubElement(categories, "Category").text = names.get(value, "")
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            ElementTree.SubElement(field, tag).text = text
    colours = {UNCLASSIFIED: (0, 0, 0, 0)} | {
        item.value: (*rgb(item.colour), 255) for item in classes
    }
    for index, value in enumerate(sorted(names)):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for cell in (value, names[value], counts.get(value, 0), *colours[value]):
            ElementTree.SubElement(row, "F").text = str(cell)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
    return document

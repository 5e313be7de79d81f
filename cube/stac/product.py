"""Bytes of a product's MTD_MSIL2A.xml in, what it says of its own counts out: baseline and offset."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cube.errors import InputError

LARGEST_METADATA = 4 * 1024 * 1024
"""Real ones have some 50 KB."""

_ROOT = "Level-2A_User_Product"
_BAND_IDS = (
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B06",
    "B07",
    "B08",
    "B8A",
    "B09",
    "B10",
    "B11",
    "B12",
)
"""Bands in the order of `band_id` (Sentinel-2 Product Specification Document, PSD 14.8 and later)."""

_BASELINE = re.compile(r"\d{2}\.\d{2}")


@dataclass(frozen=True, kw_only=True)
class ProductMetadata:
    """What a product of level 2A says of itself."""

    baseline: str
    """Processing baseline, e.g. `05.09`."""
    offsets: Mapping[str, int] | None
    """Counts to add, by band (B10 too, which no L2A product has); None for products made before
    there was such a list."""
    quantification: int
    """Counts of a reflectance of 1: 10,000."""

    @property
    def offset(self) -> int:
        """Counts to add to every reflectance band: 0 where there is no list.

        Raises `InputError` if the bands differ.
        """
        found = sorted(set((self.offsets or {"all": 0}).values()))
        if len(found) > 1:
            raise InputError(
                f"product metadata states several offsets ({found}); one for all bands is expected"
            )
        return found[0]


def read_product_offset(xml: bytes) -> ProductMetadata:
    """Read PROCESSING_BASELINE, BOA_QUANTIFICATION_VALUE and BOA_ADD_OFFSET_VALUES_LIST.

    Source: Sentinel-2 Product Specification Document, level 2A user product. Entities and document
    types are refused, so nothing in the file can grow or point elsewhere. Raises `InputError` for
    what is no such file: broken, another document (HTML, the metadata of a tile), too large,
    fields missing or twice, numbers that are none.
    """
    if len(xml) > LARGEST_METADATA:
        raise InputError(
            f"product metadata has {len(xml)} bytes; at most {LARGEST_METADATA} are read, 50 KB is usual"
        )
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(
            f"product metadata is no XML that can be trusted ({type(error).__name__}: {error}); "
            f"it begins {xml[:40]!r}"
        ) from error
    name = root.tag.rpartition("}")[2]
    if name != _ROOT:
        raise InputError(f"product metadata is a {name[:60]!r} document; expected {_ROOT!r}")
    baseline = _text(root, "PROCESSING_BASELINE")
    if not _BASELINE.fullmatch(baseline):
        raise InputError(f"product metadata states baseline {baseline[:60]!r}; expected e.g. 05.09")
    return ProductMetadata(
        baseline=baseline,
        offsets=_offsets(root),
        quantification=_whole(_text(root, "BOA_QUANTIFICATION_VALUE"), "BOA_QUANTIFICATION_VALUE"),
    )


def _text(root: Element, field: str) -> str:
    found = list(root.iter(field))
    if len(found) != 1:
        raise InputError(f"product metadata has {len(found)} fields {field}; expected one")
    return (found[0].text or "").strip()


def _whole(text: str, field: str) -> int:
    try:
        number = float(text)
        whole = int(number)
    except (ValueError, OverflowError):
        raise InputError(f"product metadata: {field} is {text[:60]!r}, no number") from None
    if whole != number or abs(whole) > 100_000:
        raise InputError(f"product metadata: {field} is {text[:60]!r}; expected a whole number")
    return whole


def _offsets(root: Element) -> dict[str, int] | None:
    lists = list(root.iter("BOA_ADD_OFFSET_VALUES_LIST"))
    if not lists:
        return None
    found: dict[str, int] = {}
    for entry in lists[0].iter("BOA_ADD_OFFSET"):
        number = entry.get("band_id", "")
        if not (number.isdecimal() and int(number) < len(_BAND_IDS)):
            raise InputError(f"product metadata: BOA_ADD_OFFSET of band_id {number[:20]!r}")
        found[_BAND_IDS[int(number)]] = _whole((entry.text or "").strip(), "BOA_ADD_OFFSET")
    missing = [band for band in _BAND_IDS if band not in (*found, "B10")]
    if missing or len(lists) > 1:
        raise InputError(
            f"product metadata: {len(lists)} lists of BOA_ADD_OFFSET, without "
            f"{', '.join(missing) or 'gaps'}; expected one, of every band"
        )
    return found

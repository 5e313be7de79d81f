"""A product's own metadata are read field by field, and nothing else passes for them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import InputError
from cube.stac.product import read_product_offset

REAL = {
    "S2A_MSIL2A_20150826T185436_N0212_R070_T11SLT_20210412T023147": ("02.12", None),
    "S2A_MSIL2A_20180721T053721_N0212_R062_T43MDV_20201011T181419.SAFE": ("02.12", None),
    "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE": ("02.12", None),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE": ("05.09", -1000),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158.SAFE": ("05.09", -1000),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCS_20230626T022157.SAFE": ("05.09", -1000),
    "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825.SAFE": ("05.09", -1000),
    "S2A_OPER_MSI_L2A_TL_VGS1_20220401T110010_A035382_T34LBQ": ("04.00", -7000),
    "S2A_OPER_MSI_L2A_TL_VGS1_20220401T110010_A035382_T34LBQ-no-tileDataGeometry": (
        "04.00",
        -7000,
    ),
    "S2B_MSIL2A_20191228T210519_N0212_R071_T01CCV_20201003T104658.SAFE": ("02.12", None),
    "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE": ("04.00", -1000),
    "esa_S2B_MSIL2A_20210122T133229_N0214_R081_T22HBD_20210122T155500.SAFE": ("02.14", None),
}
"""Baseline and BOA_ADD_OFFSET of every band, read off the files; -7000 is an edited one."""

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

NAMES = ("mtd_msil2a.xml", "product_metadata.xml")


def test_every_real_file(shared_data):
    seen = {}
    for path in sorted((shared_data / "safe-metadata").rglob("*.xml")):
        if path.name.lower() not in NAMES:
            with pytest.raises(InputError, match=r"is a 'Level-\d\w_\w+' document; expected"):
                read_product_offset(path.read_bytes())
            continue
        found = read_product_offset(path.read_bytes())
        assert found.quantification == 10_000
        assert found.offset == (found.offsets["B02"] if found.offsets else 0)
        seen[path.parent.name] = (found.baseline, found.offsets)
    expected = {
        folder: (baseline, None if offset is None else dict.fromkeys(BANDS, offset))
        for folder, (baseline, offset) in REAL.items()
    }
    assert seen == expected


def document(
    *, baseline="05.09", quantification="10000", offsets=None, root="Level-2A_User_Product"
):
    entries = offsets
    if entries is None:
        entries = "".join(
            f'<BOA_ADD_OFFSET band_id="{n}">-1000</BOA_ADD_OFFSET>' for n in range(13)
        )
    return (
        f'<?xml version="1.0"?><n1:{root} xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD">'
        f"<a><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        f"<BOA_QUANTIFICATION_VALUE>{quantification}</BOA_QUANTIFICATION_VALUE>"
        f"<BOA_ADD_OFFSET_VALUES_LIST>{entries}</BOA_ADD_OFFSET_VALUES_LIST></a></n1:{root}>"
    ).encode()


def test_the_smallest_document():
    found = read_product_offset(document())
    assert (found.baseline, found.offset, found.quantification) == ("05.09", -1000, 10_000)


def test_bands_that_differ():
    entries = "".join(f'<BOA_ADD_OFFSET band_id="{n}">{-n}</BOA_ADD_OFFSET>' for n in range(13))
    found = read_product_offset(document(offsets=entries))
    assert found.offsets == {band: -n for n, band in enumerate(BANDS)}
    with pytest.raises(InputError, match=r"states several offsets \(\[-12, .*one for all bands"):
        _ = found.offset


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><x>&c;</x>"""
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<x>&a;</x>"""


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        (BOMB, "no XML that can be trusted .DTDForbidden"),
        (OUTSIDE, "no XML that can be trusted .DTDForbidden"),
        (b"<!DOCTYPE html><html><body>403</body></html>", "no XML that can be trusted .*DOCTYPE"),
        (b"<html><body>not found</body></html>", "is a 'html' document"),
        (b"<html><p>not found</html>", "no XML that can be trusted .ParseError"),
        (b"", "no XML that can be trusted"),
        (b"\x00\x01II*\x00", "no XML that can be trusted"),
        (b'<?xml version="1.0" encoding="no-such"?><x/>', "no XML that can be trusted"),
        (document()[:-40], "no XML that can be trusted .ParseError"),
        (b" " * 5_000_000, "has 5000000 bytes; at most"),
        (document(root="Level-1C_User_Product"), "is a 'Level-1C_User_Product' document"),
        (document(baseline="5"), "states baseline '5'; expected e.g. 05.09"),
        (document(baseline="<b/>"), "states baseline ''"),
        (document(quantification="many"), "BOA_QUANTIFICATION_VALUE is 'many', no number"),
        (document(quantification="nan"), "BOA_QUANTIFICATION_VALUE is 'nan'"),
        (document(quantification="1e999"), "BOA_QUANTIFICATION_VALUE is '1e999'"),
        (document(quantification="0.5"), "is '0.5'; expected a whole number"),
        (document(offsets=""), "1 lists of BOA_ADD_OFFSET, without B01, B02"),
        (document(offsets='<BOA_ADD_OFFSET band_id="99">0</BOA_ADD_OFFSET>'), "of band_id '99'"),
        (document(offsets="<BOA_ADD_OFFSET>0</BOA_ADD_OFFSET>"), "of band_id ''"),
        (document(offsets='<BOA_ADD_OFFSET band_id="0">-</BOA_ADD_OFFSET>'), "is '-', no number"),
        (
            document().replace(b"</a>", b"<PROCESSING_BASELINE>02.12</PROCESSING_BASELINE></a>"),
            "has 2 fields PROCESSING_BASELINE; expected one",
        ),
        (
            document().replace(b"PROCESSING_BASELINE", b"OTHER"),
            "has 0 fields PROCESSING_BASELINE",
        ),
    ],
)
def test_what_is_no_product_metadata(xml, text):
    with pytest.raises(InputError, match=f"product metadata.*{text}") as caught:
        read_product_offset(xml)
    assert len(str(caught.value)) < 300


@given(cut=st.integers(0, 900), junk=st.binary(max_size=20))
def test_damage_is_always_an_input_error(cut, junk):
    whole = document()
    damaged = whole[:cut] + junk + whole[cut + len(junk) :]
    try:
        found = read_product_offset(damaged)
    except InputError:
        return
    assert len(found.baseline) == 5
    assert abs(found.quantification) <= 100_000


def test_nothing_is_fetched(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    xml = f'<!DOCTYPE x [<!ENTITY a SYSTEM "{Path(secret).as_uri()}">]><x>&a;</x>'.encode()
    with pytest.raises(InputError) as caught:
        read_product_offset(xml)
    assert "no XML that can be trusted" in str(caught.value)

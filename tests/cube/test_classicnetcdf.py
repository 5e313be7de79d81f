"""How long a classic NetCDF file must be, against files of the NetCDF library and of SciPy."""

from contextlib import suppress

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

from cube.classicnetcdf import classic_size

FORMATS = ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA")
KINDS = {"i1": 1, "i2": 2, "i4": 4, "f4": 4, "f8": 8}


def make(path, form, *, records, layers, fixed):
    """`layers` and `fixed` are (dtype, columns) of variables with and without records."""
    with netCDF4.Dataset(path, "w", format=form) as file:
        file.setncatts({"title": "odd", "numbers": np.arange(3, dtype="i2"), "empty": ""})
        file.createDimension("time", None)
        for number, (kind, columns) in enumerate((*fixed, *layers)):
            file.createDimension(f"x{number}", columns)
            dims = (f"x{number}",) if number < len(fixed) else ("time", f"x{number}")
            variable = file.createVariable(f"v{number}", kind, dims)
            variable.units = "m" * number
            if number < len(fixed):
                variable[:] = np.ones(columns)
            elif records:
                variable[:records] = np.ones((records, columns))
    return path


variables = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 7)), max_size=3)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(form=st.sampled_from(FORMATS), records=st.integers(0, 4), layers=variables, fixed=variables)
def test_size_is_the_libraries(tmp_path, form, records, layers, fixed):
    path = make(tmp_path / "a.nc", form, records=records, layers=layers, fixed=fixed)
    needed, found = classic_size(path), path.stat().st_size
    assert needed <= found < needed + 4, "the library pads to four bytes"


def test_size_is_scipys(tmp_path):
    with netcdf_file(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 5)
        for name in ("a", "b"):
            file.createVariable(name, "i2", ("time", "x"))[:] = np.ones((3, 5), "i2")
    size = (tmp_path / "a.nc").stat().st_size
    assert classic_size(tmp_path / "a.nc") in range(size - 3, size + 1)


@pytest.mark.parametrize("form", FORMATS)
def test_a_header_that_is_cut_or_damaged_is_refused_or_read(tmp_path, form):
    path = make(tmp_path / "a.nc", form, records=2, layers=[("i2", 3)], fixed=[("f8", 2)])
    whole = path.read_bytes()
    begin = whole.index(np.ones(2, ">f8").tobytes())
    for length in range(4, begin):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="header is cut off"):
            classic_size(path)
    rng = np.random.default_rng(0)
    for place in rng.integers(4, begin, 300):
        path.write_bytes(whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :])
        with suppress(ValueError):  # and nothing else, nor for ever
            assert classic_size(path) > 4


def test_other_formats(tmp_path):
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("x", 3)
    assert classic_size(path) is None
    for content in (b"", b"CDF", b"CDF\3", b"<html>"):
        path.write_bytes(content)
        assert classic_size(path) is None

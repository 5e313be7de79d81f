"""Names and addresses of catalogues: which provider is meant, and which is not."""

import pytest

from cube.errors import InputError
from cube.stac import PROVIDERS, catalogue_address, provider_of


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_every_provider_knows_its_own_address(provider):
    assert catalogue_address(provider.name) == provider.address
    assert provider_of(provider.address) == provider
    assert provider_of(f"{provider.address}/") == provider
    assert 0 < provider.requests_per_second <= 10
    assert 1 <= provider.page <= 1000


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://EARTH-search.aws.element84.com/v0", "earth-search"),
        ("https://planetarycomputer.microsoft.com/api/stac/v1/?a=b", "planetary-computer"),
        ("https://cmr.earthdata.nasa.gov/cloudstac/LPCLOUD", "lpcloud"),
        ("https://cmr.earthdata.nasa.gov/stac/OTHER", ""),
        ("https://earth-search.aws.element84.com.evil.example/v1", ""),
        ("https://evil.example/planetarycomputer.microsoft.com/api/stac/v1", ""),
        ("http://127.0.0.1:8080", ""),
        ("/data/catalog.json", ""),
    ],
)
def test_addresses(address, name):
    assert provider_of(address).name == name
    assert (provider_of(address).access == "none") == (name in ("", "earth-search"))


def test_names(tmp_path, monkeypatch):
    for address in ("https://stac.example/v1", "./catalog.json", "catalog.json"):
        assert catalogue_address(address) == address
    with pytest.raises(InputError, match=r"catalogue 'copernicus' is unknown; .* earth-search, pl"):
        catalogue_address("copernicus")
    with pytest.raises(InputError, match="catalogue '' is unknown"):
        catalogue_address("")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copernicus").write_text("{}")
    assert catalogue_address("copernicus") == "copernicus"

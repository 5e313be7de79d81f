import sys

import numpy as np
import pytest

from cube.cloudmodels import CloudModel, OmniCloudMask, cloud_model, with_opinion
from cube.errors import InputError, WorkFailedError
from cube.mask import ClearMask


class BrightIsCloud:
    """A model with one threshold and no idea of dark ground."""

    name: str = "bright"
    bands: tuple[str, ...] = ("B02",)
    margin: int = 0

    def classes(self, reflectance, *, pixel_size):
        blue = reflectance[0]
        opinion = np.where(blue > 0.3, 9, 5)
        opinion[blue < 0.02] = 3
        opinion[np.isnan(blue)] = 0
        return opinion.astype(np.uint8)


def as_opinion(*opinion):
    """A model that says just that of a row of pixels."""

    class Fixed(BrightIsCloud):
        def classes(self, reflectance, *, pixel_size):
            return np.array([opinion], np.uint8)

    return Fixed()


NOTHING = np.zeros((1, 1, 6), np.float32)


def test_a_model_adds_cloud_and_shadow_to_the_classes():
    scl = np.array([[4, 4, 4, 4, 9, 0]], np.uint8)
    reflectance = np.array([[[0.05, 0.5, 0.01, np.nan, 0.05, 0.5]]], np.float32)
    model = BrightIsCloud()
    assert isinstance(model, CloudModel)
    merged = with_opinion(scl, model, reflectance, mask=ClearMask(), pixel_size=10.0)
    assert merged.tolist() == [[4, 9, 3, 4, 9, 0]]
    assert merged.dtype == scl.dtype


@pytest.mark.parametrize("options", [{}, {"shadow": True}, {"snow": True}, {"opening": 50.0}])
def test_a_pixel_is_clear_only_if_both_say_so(options):
    """Every scene class meets every opinion; a lone pixel of cloud is a speck to the opening."""
    mask = ClearMask(**options)
    for opinion in (0, 3, 5, 8, 9, 10):
        for number in range(12):
            scl = np.full((1, 6), number, np.uint8)
            model = as_opinion(5, 5, opinion, 5, 5, 5)
            merged = with_opinion(scl, model, NOTHING, mask=mask, pixel_size=10.0)
            is_clear = mask.is_clear(merged, pixel_size=10.0)
            alone = mask.is_clear(scl, pixel_size=10.0)
            assert not (is_clear & ~alone).any()
            is_vetoed = opinion in (8, 9, 10) and not mask.opening
            is_vetoed |= opinion == 3 and not mask.shadow
            assert bool(is_clear[0, 2]) == (bool(alone[0, 2]) and not is_vetoed)


def test_a_model_that_answers_nonsense():
    scl = np.full((1, 6), 4, np.uint8)
    with pytest.raises(WorkFailedError, match=r"'bright' answered \(1, 6\) with classes \[5, 77\]"):
        with_opinion(scl, as_opinion(5, 5, 77, 5, 5, 5), NOTHING, mask=ClearMask(), pixel_size=10.0)
    with pytest.raises(
        WorkFailedError, match=r"answered \(1, 2\) .* expected \(1, 6\) with \[0, 3"
    ):
        with_opinion(scl, as_opinion(5, 5), NOTHING, mask=ClearMask(), pixel_size=10.0)


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install a package that offers cloud models by the entry points in its metadata."""

    def install(code, **entries):
        folder = tmp_path / "site"
        metadata = folder / "cloud_package-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: cloud-package\nVersion: 1.0\n"
        )
        lines = [f"{name} = {place}" for name, place in entries.items()]
        (metadata / "entry_points.txt").write_text(
            "\n".join(["[canopycube.cloud_models]", *lines, ""])
        )
        (folder / "cloud_package.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "cloud_package", raising=False)

    yield install
    sys.modules.pop("cloud_package", None)


PACKAGE = """
import numpy as np

class Mist:
    name = "mist"
    bands = ("B02", "B11")
    margin = 3

    def classes(self, reflectance, *, pixel_size):
        return np.full(reflectance.shape[1:], 10, np.uint8)

class Half:
    name = "half"

def broken():
    raise RuntimeError("no weights here")
"""


def test_models_of_installed_packages(offer):
    offer(
        PACKAGE,
        mist="cloud_package:Mist",
        half="cloud_package:Half",
        broken="cloud_package:broken",
        gone="cloud_package:Nobody",
    )
    model = cloud_model("mist")
    assert (model.name, model.bands, model.margin) == ("mist", ("B02", "B11"), 3)
    merged = with_opinion(
        np.full((2, 2), 4, np.uint8),
        model,
        np.zeros((2, 2, 2), np.float32),
        mask=ClearMask(),
        pixel_size=10.0,
    )
    assert (merged == 10).all()
    with pytest.raises(WorkFailedError, match=r"'half' \(cloud_package:Half\) is no cloud model"):
        cloud_model("half")
    with pytest.raises(WorkFailedError, match=r"'broken' .* cannot be loaded: .*no weights here"):
        cloud_model("broken")
    with pytest.raises(WorkFailedError, match=r"'gone' .* cannot be loaded: AttributeError"):
        cloud_model("gone")
    with pytest.raises(InputError, match=r"'fog' is unknown; known are .*mist, omnicloudmask"):
        cloud_model("fog")


@pytest.mark.parametrize("name", ["cloud_package:Mist", "os.system", "../evil", ""])
def test_a_path_of_code_is_no_model(offer, name):
    offer(PACKAGE, mist="cloud_package:Mist")
    with pytest.raises(InputError, match="is unknown; known are"):
        cloud_model(name)
    assert "cloud_package" not in sys.modules


FAKE_MODELS = """
from pathlib import Path
model_index_path = Path(__file__).with_name("index.csv")
def get_latest_model_version():
    return 4.0
def get_model_data_dir():
    raise AssertionError("the folder was given")
"""

FAKE_PACKAGE = """
import numpy as np
calls = []
def predict_from_array(array, **options):
    calls.append((array, options))
    return (array[:1] * 10).astype(np.uint8)
"""


@pytest.fixture
def omnicloudmask(tmp_path, monkeypatch):
    """Stand in for the package: its answer is ten times the red band."""
    package = tmp_path / "site" / "omnicloudmask"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE_PACKAGE)
    (package / "download_models.py").write_text(FAKE_MODELS)
    (package / "index.csv").write_text(
        "file_name,version\nold.pth,1\na.safetensors,4\nb.safetensors,4\n"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "omnicloudmask"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(package.parent)
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("a", "b"):
        with (weights / f"{name}.safetensors").open("wb") as file:
            file.truncate(2**20 + 1)
    yield weights
    for name in [name for name in sys.modules if name.split(".")[0] == "omnicloudmask"]:
        del sys.modules[name]


def test_omnicloudmask_speaks_in_scene_classes(omnicloudmask):
    red = np.array([[0.01, 0.11, 0.21, 0.31, np.nan]], np.float32)
    reflectance = np.stack([red, np.full_like(red, 0.05), np.full_like(red, 0.3)])
    model = OmniCloudMask(weights=omnicloudmask)
    assert isinstance(model, CloudModel)
    assert model.classes(reflectance, pixel_size=10.0).tolist() == [[5, 9, 8, 3, 0]]
    (array, options), *more = sys.modules["omnicloudmask"].calls
    assert more == []
    assert array.shape == (3, 50, 50)  # the smallest that it takes
    assert (array[:, 1:] == 0).all()
    assert options["destination_model_dir"] == omnicloudmask
    assert (options["patch_size"], options["patch_overlap"]) == (50, 25)
    nothing = np.full((3, 2, 2), np.nan, np.float32)
    assert (model.classes(nothing, pixel_size=10.0) == 0).all()


def test_omnicloudmask_downloads_nothing(omnicloudmask):
    (omnicloudmask / "b.safetensors").write_bytes(b"broken off")
    with pytest.raises(InputError, match=r"no weights b.safetensors in .*weights'; put them there"):
        OmniCloudMask(weights=omnicloudmask).classes(
            np.zeros((3, 4, 4), np.float32), pixel_size=10.0
        )
    assert sys.modules["omnicloudmask"].calls == []


def test_omnicloudmask_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "omnicloudmask", None)
    model = OmniCloudMask()
    with pytest.raises(InputError, match="not installed"):
        cloud_model("omnicloudmask")
    with pytest.raises(InputError, match=r"not installed \(omnicloudmask.*pip install omnicloudm"):
        model.classes(np.zeros((3, 4, 4), np.float32), pixel_size=10.0)
    with pytest.raises(InputError, match=r"pixels of 10..50 m, not 60; take another"):
        model.classes(np.zeros((3, 4, 4), np.float32), pixel_size=60.0)

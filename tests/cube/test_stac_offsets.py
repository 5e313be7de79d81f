"""Offsets of whole scene lists: product metadata, pixels, and neighbours in time, on a forest."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import rasterio

from cube.cog import Fetcher, FileUnreachableError
from cube.errors import InputError, WorkFailedError
from cube.forest import ForestSpec, write_forest
from cube.stac import SceneList, lock_scenes, scene_from_item
from cube.stac.header import read_file_header
from cube.stac.neighbours import LookedAt, beside_neighbours
from cube.stac.overview import CoarseLook, coarse_classes, look_at
from cube.stac.pixels import PixelReader
from cube.stac.scene import SCL

DARK = ("B04", "B12", "B02")


class Year:
    """A forest's scenes as items describe them, and the truth about their counts."""

    def __init__(self, folder, spec):
        self.forest = write_forest(folder, spec)
        self.paths = {path.stem: path for path in sorted(folder.rglob("*_L2A.json"))}
        self.found = SceneList(
            scenes=tuple(
                scene_from_item(json.loads(path.read_text()), base=str(path))
                for path in self.paths.values()
            )
        )
        self.truth = {s.id: -1000 if s.offset_in_pixels else 0 for s in self.forest.scenes}
        self.liars = {s.id for s in self.forest.scenes if s.is_lying}

    def dark_share(self, identifier):
        """Share of all pixels that are clear vegetation or water."""
        with rasterio.open(self.paths[identifier].with_name("SCL.tif")) as file:
            scl = file.read(1)
        return np.count_nonzero((scl == 4) | (scl == 6)) / scl.size

    def looked_at(self):
        """Every scene with its true offset and what its pixels say."""
        bands = ("B02", "B04", "B12")
        locked = lock_scenes(self.found, bands=bands, offset="metadata").scenes
        seen = []
        reader = PixelReader()
        for scene in locked:
            headers = {name: read_file_header(reader, scene, name) for name in (*DARK, SCL)}
            classes = coarse_classes(reader, scene, headers[SCL])
            reading, look = look_at(reader, scene, DARK, headers, classes)
            true = replace(scene, offset=self.truth[scene.id])
            seen.append(LookedAt(scene=true, reading=reading, look=look))
        return seen


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    return Year(tmp_path_factory.mktemp("year") / "forest", spec(seed=21, scale=0.25))


def spec(*, seed, scale):
    return ForestSpec(seed=seed, scale=scale, lying_share=0.3)


def check_every_offset(year):
    """Return how many scenes were told; fail where one was told wrongly or should have been."""
    locked = lock_scenes(year.found, bands=("B02", "B04", "B12"), offset="verify").scenes
    assert len(year.liars) >= 8
    told = 0
    for scene in locked:
        is_right = scene.offset == year.truth[scene.id]
        is_undecided = scene.offset_reason.endswith("neighbours in time are undecided")
        told += not is_undecided
        assert is_right or is_undecided, (scene.id, scene.offset_reason)
        assert is_right or year.dark_share(scene.id) < 0.01, (scene.id, scene.offset_reason)
        if scene.id in year.liars and not is_undecided:
            assert "say applied, against metadata" in scene.offset_reason
    return told / len(locked)


def check_neighbours_alone(year):
    """Return how many wrong offsets neighbours put right, of scenes made to forget their own."""
    seen = year.looked_at()
    found = {True: 0, False: 0}
    for place, ours in enumerate(seen):
        if ours.reading == "undecided":
            continue
        truth = ours.scene.offset
        for offset in (truth, -1000 - truth):
            forgetful = replace(ours, reading="undecided", scene=replace(ours.scene, offset=offset))
            everyone = [*seen[:place], forgetful, *seen[place + 1 :]]
            settled, reason = beside_neighbours(everyone, setting="verify")[place]
            is_undecided = reason.endswith("neighbours in time are undecided")
            assert is_undecided or settled == truth, (ours.scene.id, offset, reason)
            assert settled == offset or not is_undecided
            if offset != truth:
                found[not is_undecided] += 1
    return found[True] / (found[True] + found[False])


def test_pixels_and_neighbours_against_thirty_per_cent_of_lies(year):
    assert check_every_offset(year) > 0.8
    assert check_neighbours_alone(year) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.25, 0.5])
@pytest.mark.parametrize("seed", [31, 43])
def test_other_forests(tmp_path, seed, scale):
    year = Year(tmp_path / "forest", spec(seed=seed, scale=scale))
    assert check_every_offset(year) > 0.8
    assert check_neighbours_alone(year) > 0.4


def test_check_stops_at_a_liar(year):
    with pytest.raises(
        InputError,
        match=r"S2._4\dS.*add -1000 counts.*is false.*pixels say the offset is applied; set source\.offset",
    ) as caught:
        lock_scenes(year.found, bands=("B02", "B04", "B12"))
    told = sum(liar in str(caught.value) for liar in year.liars)
    assert told == min(3, len(year.liars))  # not one a run
    trusted = lock_scenes(year.found, bands=("B02",), offset="metadata").scenes
    assert {s.id for s in trusted if s.offset != year.truth[s.id]} == year.liars


# --- neighbours ------------------------------------------------------------------------------


@pytest.fixture
def scene(year):
    return year.found.scenes[0]


def seen(scene, *, days, level, reading, offset=0, name=None, ground=(32648, 0, 0, 1, 1)):
    """A scene some days later whose every count is `level`."""
    look = CoarseLook(
        ground=ground,
        bands=DARK,
        counts=np.full((3, 20, 20), level, np.uint16),
        scl=np.full((20, 20), 4, np.uint8),
    )
    moved = replace(
        scene,
        id=name or f"day{days}",
        time=scene.time + timedelta(days=days),
        offset=offset,
        offset_reason="item",
    )
    return LookedAt(scene=moved, reading=reading, look=look)


def settle(*scenes, setting="verify"):
    """What becomes of the first."""
    found = beside_neighbours(scenes, setting=setting)
    assert found[1:] == [(s.scene.offset, s.scene.offset_reason) for s in scenes[1:]]
    assert found[0] == beside_neighbours(scenes[::-1], setting=setting)[-1]  # whatever the order
    return found[0]


def test_neighbours_settle_what_pixels_cannot(scene):
    def ours(offset):
        return seen(scene, days=0, level=1600, reading="undecided", offset=offset)

    clean = [seen(scene, days=n, level=600, reading="applied") for n in (3, -8)]
    assert settle(ours(-1000), *clean) == (-1000, "item; neighbours in time agree")
    assert settle(ours(0), *clean) == (
        -1000,
        "neighbours in time say present, against metadata (item)",
    )
    with pytest.raises(
        InputError,
        match=r"'day0'.*add 0 counts .item. but neighbours in time say the offset is pre",
    ):
        settle(ours(0), *clean, setting="check")
    assert settle(ours(0), *clean, setting="metadata") == (0, "item")
    present = [seen(scene, days=n, level=1600, reading="present", offset=-1000) for n in (3, -8)]
    low = seen(scene, days=0, level=600, reading="undecided", offset=-1000)
    assert settle(low, *present) == (0, "neighbours in time say applied, against metadata (item)")


def test_neighbours_that_contradict_each_other_settle_nothing(scene):
    ours = seen(scene, days=0, level=1600, reading="undecided")
    clean = [seen(scene, days=n, level=600, reading="applied") for n in (3, -8)]
    like = seen(scene, days=5, level=1600, reading="applied")
    assert settle(ours, *clean, like) == (0, "item; neighbours in time are undecided")
    assert settle(ours, clean[0]) == (0, "item; neighbours in time are undecided")  # one may be odd
    assert settle(ours) == (0, "item; neighbours in time are undecided")


def test_who_is_a_neighbour(scene):
    ours = seen(scene, days=0, level=1600, reading="undecided")
    far = [seen(scene, days=n, level=600, reading="applied") for n in (101, -101)]
    elsewhere = [
        seen(scene, days=n, level=600, reading="applied", ground=(32648, 9, 9, 9, 9))
        for n in (1, 2)
    ]
    unsure = [seen(scene, days=n, level=600, reading="undecided") for n in (1, 2)]
    moved = [seen(scene, days=n, level=600, reading="applied") for n in (1, 2)]
    moved = [replace(one, scene=replace(one.scene, tile="49SAT")) for one in moved]
    for strangers in (far, elsewhere, moved):
        assert settle(ours, *strangers) == (0, "item; neighbours in time are undecided")
    # those who do not know themselves are not asked, though they would deny
    assert beside_neighbours([ours, *unsure], setting="verify")[0][0] == 0
    # the nearest four decide, a fifth is not heard
    near = [seen(scene, days=n, level=600, reading="applied") for n in (1, 2, 3, 4)]
    fifth = seen(scene, days=5, level=1600, reading="applied")
    assert settle(ours, fifth, *near)[0] == -1000


# --- product metadata ------------------------------------------------------------------------


def product(baseline="04.00", offset=-1000, quantification=10000):
    entries = "".join(f'<BOA_ADD_OFFSET band_id="{n}">{offset}</BOA_ADD_OFFSET>' for n in range(13))
    return (
        f"<Level-2A_User_Product><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        f"<BOA_QUANTIFICATION_VALUE>{quantification}</BOA_QUANTIFICATION_VALUE>"
        f"<BOA_ADD_OFFSET_VALUES_LIST>{entries}</BOA_ADD_OFFSET_VALUES_LIST>"
        "</Level-2A_User_Product>"
    ).encode()


HREF = "https://a.example/MTD_MSIL2A.xml"


class Told(Fetcher):
    """Fetches whole files by a function."""

    def __init__(self, read):
        super().__init__()
        object.__setattr__(self, "read", read)

    def whole(self, href, *, most):
        return self.read(href)


@pytest.fixture
def asked(year):
    """Lock one scene of baseline 04.00, its product's metadata read by a function."""
    modern = next(s for s in year.found.scenes if s.baseline == "04.00" and s.offset == -1000)

    def lock(read, **change):
        scene = replace(modern, **({"metadata_href": HREF} | change))
        found = SceneList(scenes=(scene,))
        reader = PixelReader(fetcher=Fetcher() if read is None else Told(read))
        locked = lock_scenes(
            found, bands=("B02",), offset="metadata", reader=reader, reads_metadata=read is not None
        )
        return locked.scenes[0]

    return lock


def test_product_metadata_are_told(asked):
    addresses = []

    def read(href):
        addresses.append(href)
        return product()

    scene = asked(read)
    assert addresses == [HREF]
    assert scene.offset == -1000
    assert scene.offset_reason.endswith("assets state offset -0.1; product states -1000")
    assert "product" not in asked(None).offset_reason
    assert "product" not in asked(read, metadata_href="").offset_reason
    old = asked(lambda href: product("03.01", 0), baseline="03.01", offset=0)
    assert old.offset == 0


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        (product(offset=0), "BOA_ADD_OFFSET 0, but the item's baseline 04.00 has -1000"),
        (product(offset=-7000), "BOA_ADD_OFFSET -7000, neither"),
        (product("05.09"), "are of baseline 05.09 with 10000 counts to 1, its item of 04.00"),
        (product(quantification=1000), "with 1000 counts to 1"),
    ],
)
def test_product_metadata_that_contradict_the_item(asked, xml, text):
    with pytest.raises(InputError, match=f"scene 'S2.*{text}"):
        asked(lambda href: xml)


def failing(error):
    def read(href):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (failing(WorkFailedError(f"{HREF}?sig=secret answers 503")), "503"),
        (failing(InputError("no credentials for s3")), "no credentials for s3"),
        (failing(FileUnreachableError("timed out")), "timed out"),
        (lambda href: b"<html><body>login?token=secret</body></html>", "is a 'html' document"),
        (lambda href: b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "no XML that can be trusted"),
    ],
)
def test_product_metadata_that_cannot_be_read_stop_nothing(asked, read, text):
    scene = asked(read)
    assert scene.offset == -1000
    assert "; product metadata not readable: " in scene.offset_reason
    assert text in scene.offset_reason
    assert "secret" not in scene.offset_reason

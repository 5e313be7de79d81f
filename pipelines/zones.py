"""A recipe with `grid.crs = "utm-each"` in, a cube and a map per UTM zone and one mosaic out."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from odc.geo.geom import Geometry
from shapely.geometry import MultiPolygon, Polygon

from cube.durable import replace_text
from cube.errors import InputError
from cube.grid import equal_area_crs, utm_crs
from cube.ledger import Ledger, fingerprint
from cube.mosaic import Mosaic, plan_mosaic
from cube.reference import NoLabelsError, Reference
from cube.stac.footprint import geojson, on_globe
from cube.zones import joined_samples, labels_of_zone, zone_areas
from pipelines.build_cube import cube_digest
from pipelines.content import content_of_file
from pipelines.layout import Layout
from pipelines.plan import area_of
from pipelines.progress import Reporter
from pipelines.recipe import Recipe
from pipelines.recipe_cluster import ClusterSection
from pipelines.recipe_cube import AreaSection
from pipelines.run import Run


@dataclass(frozen=True, kw_only=True)
class ZoneLayout(Layout):
    """Where one zone keeps its results; the classifier is that of all zones."""

    shared: Path
    """Folder of the whole run."""

    @property
    def classifier(self) -> Path:
        """The trained classifier."""
        return self.shared / "classifier"


class ZoneRun(Run):
    """The part of a run that one UTM zone is: its cube and its map."""

    def __init__(self, recipe: Recipe, reporter: Reporter, *, whole: "ZonedRun", epsg: int) -> None:
        super().__init__(recipe, reporter)
        self.layout = ZoneLayout(
            folder=recipe.outputs.folder,
            stores=recipe.outputs.stores,
            shared=whole.recipe.outputs.folder,
        )
        self._whole, self.epsg = whole, epsg

    @property
    def name(self) -> str:
        """Name of the zone's folder."""
        return self.recipe.outputs.folder.name

    @property
    def client(self) -> Any:
        """The client of the whole run."""
        return self._whole.client

    @property
    def cluster(self) -> ClusterSection:
        """Where the whole run works."""
        return self._whole.cluster

    def check(self) -> None:
        """Check nothing: labels and settings are those of the whole run."""

    def reference(self) -> Reference:
        """Return the labelled cells whose centre lies in this zone, `NoLabelsError` without any."""
        from cube.reference import read_reference
        from pipelines.draw_samples import reference_options

        section = self.recipe.reference
        assert section is not None  # asked of recipes with one
        options = reference_options(section, self.recipe.sampling)
        found = labels_of_zone(read_reference(options, self.plan.spec.geobox), self.epsg)
        if not len(found):
            raise NoLabelsError(f"{options.file.name!r} has no label in zone EPSG:{self.epsg}")
        return found

    def digests(self) -> dict[str, str]:
        """Return the digest of each tile of the finished cube; `InputError` unless it is finished."""
        return {tile: str(one["digest"]) for tile, one in self._cube_records().items()}


class ZonedRun(Run):
    """A run over several UTM zones: each has a cube and a map, all have samples and a classifier.

    Steps go over the zones in turn; the map is a mosaic of the zones' maps.
    """

    def __init__(self, recipe: Recipe, reporter: Reporter) -> None:
        super().__init__(recipe, reporter)
        area = area_of(recipe)
        assert area is not None  # a grid goes with an area, by validation
        self._area = area
        self.zones = tuple(
            ZoneRun(_zone_recipe(recipe, part, epsg), reporter, whole=self, epsg=epsg)
            for epsg, part in zone_areas(area).items()
        )

    @property
    def parts(self) -> tuple[Run, ...]:
        """The runs of the zones."""
        return self.zones

    def close(self) -> None:
        """Give the cluster back."""
        for zone in self.zones:
            zone.close()
        super().close()

    @property
    def cluster(self) -> ClusterSection:
        """Where the work runs, settled for as many tiles as all zones have."""
        return self.recipe.cluster.settled(sum(zone.plan.spec.tile_count for zone in self.zones))

    def describe(self, *, calibrates: bool = False) -> dict[str, Any]:
        """Return what a run will do in each zone."""
        self.check()
        return {"zones": {zone.name: zone.describe(calibrates=calibrates) for zone in self.zones}}

    def lock(self, *, update: bool = False) -> dict[str, Any]:
        """Make the scene lock file of each zone."""
        return {"zones": {zone.name: zone.lock(update=update) for zone in self.zones}}

    def check(self) -> None:
        """Refuse labels and settings that cannot be used; some zone must have labels."""
        if self.recipe.reference is None:
            return
        from pipelines.draw_samples import check_reference
        from pipelines.train_model import check_training, train_config

        check_training(self.recipe)
        train_config(self.recipe.training, self.recipe.bands)
        if self._takes_samples:
            check_reference(self.recipe, None)
        else:
            self._references()

    def build(self) -> dict[str, Any]:
        """Build the cube of each zone."""
        inputs = self._cube_inputs()
        self._begin("cube", inputs)
        found = {}
        for zone in self.zones:
            self.reporter.say(f"{zone.name}: {zone.plan.spec.tile_count} tiles")
            found[zone.name] = zone.build()
        return self._end("cube", inputs, _as_one(self.zones, found))

    def map(self, *, table: Path | None = None) -> dict[str, Any]:
        """Map each zone, then lay the maps together; `table` gets the rows of the mosaic."""
        from pipelines.mosaic_maps import mosaic_maps

        if table is not None:
            from pipelines.map_table import check_table

            check_table(table)
        made = {zone.name: zone.map() for zone in self.zones}
        mosaic = self._mosaic()
        inputs = mosaic.inputs
        self._begin("map", inputs)
        with self._failures("map"):
            found = mosaic_maps(
                mosaic, self.layout.map, self.client, self.reporter, title=self.recipe.name
            )
        found["engine"] = next(iter(made.values())).get("engine", {})
        found["zones"] = {name: {"tiles": one["tiles"]} for name, one in made.items()}
        if table is not None:
            from pipelines.map_table import write_map_table

            self._refuse_damaged_map(mosaic.spec.regions())
            found["table"] = write_map_table(self.layout.map, table, self.reporter)
        return self._end("map", inputs, found)

    def publish(self) -> dict[str, Any]:
        """Write the mosaic for other programs and for people; only a whole one is published."""
        from pipelines.publish_map import PICTURES, publish_map

        made = self.report.get("map")
        if made is None or not self.layout.map.exists():
            raise InputError("there is no finished map yet; run `canopycube map` first")
        mosaic = self._mosaic()
        tiles = Ledger(store=self.layout.map, inputs=mosaic.inputs).records("digest")
        if len(tiles) < mosaic.spec.tile_count or cube_digest(tiles) != made["digest"]:
            raise InputError(
                f"the mosaic has {len(tiles)} of {mosaic.spec.tile_count} tiles of the zones' maps "
                "as they are now; run `canopycube map` first"
            )
        self._refuse_damaged_map(mosaic.spec.regions())
        inputs = fingerprint({"map": made["inputs"], "name": self.recipe.name})
        files = [self.layout.folder / name for name in PICTURES]
        if self._is_done("published", inputs) and all(file.exists() for file in files):
            return dict(self.report["published"])
        self._begin("published", inputs)
        found = publish_map(self.layout, self.recipe.name, self.reporter)
        return self._end("published", inputs, found)

    def _mosaic(self) -> Mosaic:
        maps = [zone.layout.map for zone in self.zones]
        crs = self.recipe.grid.mosaic_crs
        if crs == "equal-area":
            crs = equal_area_crs(self._area).to_wkt()
        elif crs == "utm":
            crs = utm_crs(self._area).to_wkt()
        return plan_mosaic(maps, crs=crs, resolution=self.recipe.grid.resolution)

    def _cube_inputs(self) -> str:
        return fingerprint({zone.name: zone.plan.inputs for zone in self.zones})

    def _is_built(self) -> bool:
        return all(zone._is_built() for zone in self.zones)

    def _references(self) -> dict[str, Reference]:
        """Return the labels of each zone that has any; `InputError` if none has."""
        found = {}
        for zone in self.zones:
            with suppress(NoLabelsError):  # one zone alone need not have labels
                found[zone.name] = zone.reference()
        if not found:
            raise InputError(
                "no label of reference.file lies in the area, in none of its zones "
                f"{', '.join(zone.name for zone in self.zones)}"
            )
        return found

    def _draw(self) -> dict[str, Any]:
        if self._takes_samples:
            return super()._draw()
        from pipelines.draw_samples import sample_cubes

        references = self._references()
        digests = {zone.name: zone.digests() for zone in self.zones}
        cubes = {zone.name: zone.layout.cube for zone in self.zones if zone.name in references}
        return sample_cubes(
            self.recipe,
            cubes,
            references,
            tile_digests=digests,
            join=self._joined,
            client=self.client,
        )

    def _joined(self, parts: Mapping[str, Any], options: Any) -> Any:
        return joined_samples(parts, options, equal_area_crs(self._area))

    def _origin_of_samples(self) -> dict[str, Any]:
        section = self.recipe.reference
        assert section is not None  # the caller has seen to it
        if section.file is None:
            return super()._origin_of_samples()
        cubes = fingerprint({zone.name: zone.digests() for zone in self.zones})
        return {"cube": cubes, "file": content_of_file(section.file)}


def _zone_recipe(recipe: Recipe, part: Geometry, epsg: int) -> Recipe:
    """Return the recipe of one zone; its part of the area is kept in the zone's folder."""
    name = f"zone-{epsg}"
    outputs = recipe.outputs
    folder = outputs.folder / name
    file = folder / "area.geojson"
    text = _as_geojson(part)
    if not (file.is_file() and file.read_text(encoding="utf-8") == text):
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(file, text)
    assert recipe.area is not None  # a grid goes with an area, by validation
    return recipe.model_copy(
        update={
            "area": AreaSection.model_construct(bbox=None, crs="EPSG:4326", file=file),
            "grid": recipe.grid.model_copy(update={"crs": f"EPSG:{epsg}"}),
            "outputs": outputs.model_copy(
                update={
                    "folder": folder,
                    "stores": None if outputs.stores is None else outputs.stores / name,
                }
            ),
            # a box is no clip, whatever the file of its part says
            "map": recipe.map.model_copy(
                update={"clip": recipe.map.clip and recipe.area.file is not None}
            ),
        }
    )


def _as_geojson(part: Geometry) -> str:
    whole = on_globe(cast(Polygon | MultiPolygon, part.geom))
    assert whole is not None  # `zone_areas` gives places on the globe
    feature = {"type": "Feature", "properties": {}, "geometry": geojson(whole)}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


def _as_one(zones: tuple[ZoneRun, ...], found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the report says of the cubes of all zones together."""
    pixels = {zone.name: zone.plan.spec.pixel_count for zone in zones}
    total = sum(pixels.values())
    done = [[int(part) for part in one["tiles"].split(" of ")] for one in found.values()]

    def mean(name: str) -> dict[str, float]:
        periods = dict.fromkeys(period for one in found.values() for period in one[name])
        return {
            period: sum(one[name].get(period, 1.0) * pixels[zone] for zone, one in found.items())
            / total
            for period in periods
        }

    first = next(iter(found.values()))["shape"]
    return {
        "path": {name: one["path"] for name, one in found.items()},
        "shape": {"zone": len(zones), "time": first["time"], "band": first["band"], "pixel": total},
        "tiles": " of ".join(str(sum(part)) for part in zip(*done, strict=True)),
        "built_now": sum(one["built_now"] for one in found.values()),
        "lost_scenes": [lost for one in found.values() for lost in one["lost_scenes"]],
        "empty_share_by_period": mean("empty_share_by_period"),
        "filled_share_by_period": mean("filled_share_by_period"),
        "requests": sum(one["requests"] for one in found.values()),
        "bytes_read": sum(one["bytes_read"] for one in found.values()),
        "bytes": sum(one["bytes"] for one in found.values()),
        "digest": fingerprint({name: one["digest"] for name, one in found.items()}),
        "seconds": round(sum(one["seconds"] for one in found.values()), 2),
    }

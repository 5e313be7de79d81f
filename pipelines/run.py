"""A recipe in, every step done and a report out; what is done already is not done again."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger, fingerprint
from cube.spec import Region
from pipelines.build_cube import build_cube, cube_digest, lost_scenes
from pipelines.cluster import FailedTile, TilesFailedError, connect, reported
from pipelines.content import content_of_file
from pipelines.failed_tiles import keep_failed
from pipelines.learn import Learning
from pipelines.memory import peak_memory_mb
from pipelines.plan import CubePlan, area_of, plan_cube
from pipelines.planned import tiles_at_once
from pipelines.progress import Reporter
from pipelines.recipe import ClusterSection, Recipe, SeriesRecipe, read_recipe
from pipelines.recipe_model import OutputsSection
from pipelines.report import write_report
from pipelines.sole_user import sole_user

if TYPE_CHECKING:
    from distributed import Client


class Run(Learning[Recipe]):
    """One recipe being carried out; each step can be called alone and resumes."""

    def __init__(self, recipe: Recipe, reporter: Reporter) -> None:
        super().__init__(recipe, reporter)
        self._stack = ExitStack()
        self._plan: CubePlan | None = None
        self._client: Client | None = None
        self.performance_report: Path | None = None

    def close(self) -> None:
        """Give the cluster back."""
        self._stack.close()

    @property
    def parts(self) -> "tuple[Run, ...]":
        """The runs that have a cube each: this one, or those of its zones."""
        return (self,)

    @property
    def plan(self) -> CubePlan:
        """Grid, scenes and source of the cube, settled once."""
        if self._plan is None:
            self._plan = self._make_plan()
        return self._plan

    @property
    def client(self) -> "Client":
        """The Dask client, made when the first step needs it."""
        if self._client is None:
            self._client = self._stack.enter_context(connect(self.cluster))
            self._tell_dashboard()
            if self.performance_report is not None:
                self._stack.enter_context(reported(self.performance_report))
        return self._client

    @property
    def cluster(self) -> ClusterSection:
        """Where the work runs, settled for as many tiles as there are."""
        return self.recipe.cluster.settled(len(self.plan.spec.regions()))

    @property
    def workers(self) -> int:
        """Tiles that are worked on at once."""
        return tiles_at_once(self.recipe)

    def _tell_dashboard(self) -> None:
        """Say where Dask's dashboard is, to who sits there or where many machines work."""
        link = self.client.dashboard_link if self.cluster.dashboard else None
        if link and (self.reporter.is_live or self.cluster.is_elsewhere):
            self.reporter.say(f"dashboard {link}")

    @contextmanager
    def _failures(self, step: str) -> Iterator[None]:
        """Keep which tiles a step gives up, and why, until it has done them."""
        try:
            yield
        except TilesFailedError as error:
            self._note_failed(step, error.failed)
            raise
        self._note_failed(step, ())

    def _note_failed(self, step: str, failed: Sequence[FailedTile]) -> None:
        before = self.report.pop("failed", [])
        if entries := keep_failed(self.layout.folder, step, failed):
            self.report["failed"] = entries
        if entries != before:
            write_report(self.layout.report, self.report)

    def lock(self, *, update: bool = False) -> dict[str, Any]:
        """Make the scene lock file; with `update` search anew even if it answers the recipe.

        Returns which scenes came, went and changed. A file that cannot be read is made anew.
        """
        from cube.stac import SceneList, difference, read_scenes
        from pipelines.scenelock import same_scenes

        if self.recipe.source.kind == "stack":
            raise InputError(
                "source.kind = 'stack' has no catalogue to search; its scenes are source.files"
            )
        file = self.layout.scenes
        before: SceneList | None = None
        if file.exists():
            try:
                before = read_scenes(file)
            except InputError as error:
                self.reporter.say(f"{error}; it is made anew")
        self._plan = self._make_plan(update_lock=update or before is None)
        after = self._plan.scenes
        assert after is not None  # a catalogue gives a list
        is_kept = before is not None and not update and same_scenes(before, after)
        changes = difference(before, after)
        return {
            "file": str(file),
            "state": "made" if before is None else "kept" if is_kept else "searched",
            "scenes": len(after.scenes),
            "dropped": len(after.dropped),
            "added": list(changes.added),
            "removed": list(changes.removed),
            # what reading takes is no change of a scene
            "changed": {
                name: [field for field in fields if not field.startswith("cost.")]
                for name, fields in changes.changed.items()
            },
        }

    def export(
        self,
        *,
        waits: bool = True,
        again: Sequence[str] | None = None,
        cancels: bool = False,
    ) -> dict[str, Any]:
        """Let Earth Engine write the cube's tiles into files, and follow that to its end.

        `again` exports tiles anew: those named, or, of none, all whose file is lost or damaged.
        With `cancels` tasks that have not ended are stopped instead.
        """
        section = self.recipe.source
        if section.kind != "earthengine" or section.export is None:
            raise InputError(
                "there is nothing to export: the recipe has no [source.export], which goes with "
                "source.kind = 'earthengine'; `canopycube build` needs none"
            )
        from cube.earthengine.exported import ExportedSource
        from pipelines.export_composites import ExportJob, cancel_exports, export_composites
        from pipelines.plan_earthengine import access_of

        if cancels:
            return cancel_exports(self.layout.exports, access_of(self.recipe, section))
        plan = self.plan
        assert isinstance(plan.source, ExportedSource)  # planned so for such a section
        job = ExportJob(
            source=plan.source,
            section=section.export,
            title=self.recipe.name,
            record=self.layout.exports,
        )
        return export_composites(job, self.reporter, waits=waits, again=again)

    def describe(self, *, calibrates: bool = False) -> dict[str, Any]:
        """Return what a run will do, after checking labels and settings too.

        If it `calibrates`, one tile is made really, to tell how long all take.
        """
        from pipelines.plan_run import describe_run

        self.check()
        return describe_run(
            self.recipe, self.plan, self.layout, self.reporter, calibrates=calibrates
        )

    def check(self) -> None:
        """Refuse labels and settings that cannot be used, before the hours of a build.

        Raises `InputError` or the model's own errors.
        """
        if self.recipe.reference is None:
            return
        from pipelines.draw_samples import check_reference
        from pipelines.train_model import check_training, train_config

        check_training(self.recipe)
        train_config(self.recipe.training, self.recipe.bands)
        check_reference(self.recipe, None if self._takes_samples else self.plan.spec.geobox)

    def build(self) -> dict[str, Any]:
        """Build the cube."""
        self._begin("cube", self.plan.inputs)
        for warning in self.plan.facts.get("warnings", ()):
            self.reporter.say(warning)
        with self._failures("build"):
            found = build_cube(
                self.plan, self.layout.cube, self.client, self.reporter, title=self.recipe.name
            )
        return self._end("cube", self.plan.inputs, found)

    def map(self, *, table: Path | None = None) -> dict[str, Any]:
        """Classify the cube; with `table` write every classified pixel there as a row, too."""
        from pipelines.engine_choice import machines_elsewhere
        from pipelines.map_species import map_species, plan_map

        if table is not None:
            from pipelines.map_table import check_table

            check_table(table)
        self._cube_records()  # refuses a cube that is not complete
        clip = self.recipe.map.clip and self.recipe.area and self.recipe.area.file
        job = plan_map(
            self.layout.cube,
            self.layout.classifier,
            self.layout.map,
            title=self.recipe.name,
            min_months=self.recipe.map.min_months,
            clip=area_of(self.recipe) if clip else None,
            colours=self.recipe.reference.colours if self.recipe.reference else None,
            engine=self.recipe.map.engine,
            machines=machines_elsewhere(self.client),
            layers=self.recipe.map.layers,
        )
        self._begin("map", job.inputs)
        with self._failures("map"):
            found = map_species(job, self.client, self.reporter)
        # `_begin` has taken the section of what was published of other inputs out of the report
        is_earlier = "published" not in self.report and (self.layout.folder / "map.tif").exists()
        found["has_earlier_tif"] = is_earlier
        self._end("map", job.inputs, found)
        if table is not None:
            from pipelines.map_table import write_map_table

            self._refuse_damaged_map()
            found["table"] = write_map_table(self.layout.map, table, self.reporter)
        return self._end("map", job.inputs, found)

    def publish(self) -> dict[str, Any]:
        """Write the map for other programs and for people; only a whole map is published."""
        made = self.report.get("map")
        if made is None or not self.layout.map.exists():
            raise InputError("there is no finished map yet; run `canopycube map` first")
        from pipelines.publish_map import PICTURES, publish_map

        total = self.plan.spec.tile_count
        tiles = Ledger(store=self.layout.map, inputs=None).records("digest")
        if len(tiles) < total:
            raise InputError(
                f"the map has {len(tiles)} of {total} tiles; run `canopycube map` first"
            )
        if cube_digest(tiles) != made["digest"]:
            raise InputError(
                "the map is not the one that the report tells of; run `canopycube map` first"
            )
        self._refuse_damaged_map()
        inputs = fingerprint({"map": made["inputs"], "name": self.recipe.name})
        files = [self.layout.folder / name for name in PICTURES]
        if self._is_done("published", inputs) and all(file.exists() for file in files):
            return dict(self.report["published"])
        self._begin("published", inputs)
        found = publish_map(self.layout, self.recipe.name, self.reporter)
        return self._end("published", inputs, found)

    def _refuse_damaged_map(self, regions: Sequence[Region] | None = None) -> None:
        """Raise `WorkFailedError` if any of the map's `regions`, by default all tiles, is damaged."""
        from pipelines.map_species import forget_damaged

        regions = self.plan.spec.regions() if regions is None else regions
        if damaged := forget_damaged(self.layout.map, regions):
            raise WorkFailedError(
                f"tiles {', '.join(damaged)} of the map are lost or damaged. Their records are "
                "removed: run `canopycube map` again"
            )

    def all(self) -> dict[str, Any]:
        """Do every step the recipe asks for; return the report."""
        started = time.perf_counter()
        self.check()
        self._export_first()
        self.build()
        if self.recipe.reference is not None:
            for step in (self.sample, self.train, self.map, self.publish):
                step()
        peaks = [peak_memory_mb(), *self.client.run(peak_memory_mb).values()]
        found = {"seconds": round(time.perf_counter() - started, 1), "peak_memory_mb": max(peaks)}
        self._end("run", "", found)
        return self.report

    def _export_first(self) -> None:
        """Export what a cube that is not there yet is to be built from.

        Not to a Drive: its files come from there by the user's own hand.
        """
        section = self.recipe.source
        if section.kind != "earthengine" or section.export is None or self._is_built():
            return
        if section.export.to == "drive":
            self.reporter.say(
                "files of a Drive are not fetched: `canopycube export RECIPE` writes them there, "
                f"and the cube is built from those that you put into {str(section.export.files)!r}"
            )
            return
        self.export()

    def _is_built(self) -> bool:
        """Say whether every tile of the cube is there."""
        if not self.layout.cube.exists():
            return False
        ledger = Ledger(store=self.layout.cube, inputs=self.plan.tile_inputs)
        return not ledger.pending(self.plan.spec.regions())

    def _make_plan(self, *, update_lock: bool = False) -> CubePlan:
        with ExitStack() as stack:
            advance: Any = None

            def on_scene(done: int, total: int) -> None:
                nonlocal advance
                if advance is None:
                    advance = stack.enter_context(self.reporter.bar("scenes", total))
                advance()

            return plan_cube(self.recipe, update_lock=update_lock, on_scene=on_scene)

    def _draw(self) -> dict[str, Any]:
        """Draw samples from the finished cube, or take imported ones, which need none."""
        if self._takes_samples:
            return super()._draw()
        from pipelines.draw_samples import sample_cube

        records = self._cube_records()
        digests = {tile: str(record["digest"]) for tile, record in records.items()}
        return sample_cube(self.recipe, tile_digests=digests, client=self.client)

    def _origin_of_samples(self) -> dict[str, Any]:
        section = self.recipe.reference
        assert section is not None  # the caller has seen to it
        if section.samples is not None:
            periods = [str(period) for period in self.recipe.months.calendar]
            own = {"bands": self.recipe.bands, "periods": periods}
            return super()._origin_of_samples() | own
        assert section.file is not None  # one of the two, by validation
        cube = cube_digest(self._cube_records())
        return {"cube": cube, "file": content_of_file(section.file)}

    def _cube_records(self) -> dict[str, dict[str, Any]]:
        """Return `digest` and `lost` of each tile; `InputError` unless the cube is there and complete.

        `WorkFailedError` if more scenes are lost in it than the recipe allows.
        """
        if not self.layout.cube.exists():
            raise InputError(
                f"there is no cube at {str(self.layout.cube)!r}; run `canopycube build` first"
            )
        ledger = Ledger(store=self.layout.cube, inputs=self.plan.tile_inputs)
        records = ledger.records("digest", "lost")
        total = self.plan.spec.tile_count
        if len(records) < total:
            raise InputError(
                f"the cube has {len(records)} of {total} tiles for this recipe; "
                "run `canopycube build` first"
            )
        lost, allowed = lost_scenes(records), self.plan.allowed_losses
        if len(lost) > allowed:
            raise WorkFailedError(
                f"the cube was built without {len(lost)} scenes whose files are broken, {allowed} "
                "are allowed; run `canopycube build` again, or raise source.lost_scenes"
            )
        return records


@contextmanager
def open_run(
    recipe: Recipe | Path, reporter: Reporter | None = None, *, waits: bool = False
) -> Iterator[Run]:
    """Yield the run of a recipe, quiet unless told otherwise, and give its cluster back afterwards.

    One run works in an output folder, and where its stores lie, at a time; a second one is refused,
    or `waits`. Raises `InputError` for a recipe that cannot be read and for a folder in use; running
    out of memory becomes a `WorkFailedError` that says what to change.
    """
    read = read_recipe(recipe) if isinstance(recipe, Path) else recipe
    reporter = reporter or Reporter(is_quiet=True)
    smaller = "composite.tile or fewer cluster.workers"
    with _own_folder(read.outputs, smaller, reporter, waits=waits):
        run = _run_of(read, reporter)
        try:
            yield run
        finally:
            run.close()


def _run_of(recipe: Recipe, reporter: Reporter) -> Run:
    if recipe.grid.crs != "utm-each":
        return Run(recipe, reporter)
    from pipelines.zones import ZonedRun  # it is made of runs

    return ZonedRun(recipe, reporter)


@contextmanager
def open_learning(
    recipe: SeriesRecipe, reporter: Reporter | None = None, *, waits: bool = False
) -> Iterator[Learning[SeriesRecipe]]:
    """Yield the steps of a recipe of labelled series, as `open_run` does those of a cube."""
    reporter = reporter or Reporter(is_quiet=True)
    smaller = "training.batch_size or sampling.max_per_class"
    with _own_folder(recipe.outputs, smaller, reporter, waits=waits):
        yield Learning(recipe, reporter)


@contextmanager
def _own_folder(
    outputs: OutputsSection, smaller: str, reporter: Reporter, *, waits: bool
) -> Iterator[None]:
    """Let one run work in a folder; say what to make smaller where memory does not suffice."""
    _refuse_an_import(outputs.folder)
    with sole_user(outputs.folder, outputs.stores, waits=waits, say=reporter.say):
        try:
            yield
        except MemoryError as error:
            raise WorkFailedError(
                f"the machine ran out of memory; use a smaller {smaller}"
            ) from error


def _refuse_an_import(folder: Path) -> None:
    """Refuse to write results over tables that were imported."""
    if (folder / "import.json").is_file():
        raise InputError(
            f"outputs.folder {str(folder)!r} holds an import, whose samples a run would replace; "
            "choose another, e.g. its recipe's own 'run'"
        )

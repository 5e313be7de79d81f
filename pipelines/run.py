"""A recipe in, every step done and a report out; what is done already is not done again."""

import hashlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger, fingerprint
from pipelines.build_cube import build_cube, cube_digest
from pipelines.cluster import connect
from pipelines.plan import CubePlan, Layout, area_of, plan_cube
from pipelines.progress import Reporter
from pipelines.recipe import Recipe, read_recipe
from pipelines.report import read_report, write_report

if TYPE_CHECKING:
    from distributed import Client

STEPS = ("build", "sample", "train", "map", "publish")
"""The steps of a run, in order."""


class Run:
    """One recipe being carried out; each step can be called alone and resumes."""

    def __init__(self, recipe: Recipe, reporter: Reporter) -> None:
        self.recipe, self.reporter = recipe, reporter
        self.layout = Layout(folder=recipe.outputs.folder)
        self.report = read_report(self.layout.report)
        self._stack = ExitStack()
        self._plan: CubePlan | None = None
        self._client: Client | None = None

    def close(self) -> None:
        """Give the cluster back."""
        self._stack.close()

    @property
    def plan(self) -> CubePlan:
        """Grid, scenes and source of the cube, settled once."""
        if self._plan is None:
            with ExitStack() as stack:
                advance: Any = None

                def on_scene(done: int, total: int) -> None:
                    nonlocal advance
                    if advance is None:
                        advance = stack.enter_context(self.reporter.bar("scenes", total))
                    advance()

                self._plan = plan_cube(self.recipe, on_scene=on_scene)
        return self._plan

    @property
    def client(self) -> "Client":
        """The Dask client, made when the first step needs it."""
        if self._client is None:
            self._client = self._stack.enter_context(connect(self.recipe.cluster))
        return self._client

    @property
    def workers(self) -> int:
        """Tiles that are worked on at once."""
        return self.recipe.cluster.workers or os.cpu_count() or 1

    def build(self) -> dict[str, Any]:
        """Build the cube."""
        return self._note(
            "cube",
            build_cube(
                self.plan, self.layout.cube, self.client, self.reporter, title=self.recipe.name
            ),
        )

    def sample(self) -> dict[str, Any]:
        """Draw samples from the finished cube."""
        section = self.recipe.reference
        if section is None:
            raise InputError("the recipe has no [reference], so there is nothing to sample")
        digests = self._tile_digests()
        inputs = fingerprint(
            {
                "cube": digests,
                "reference": section.model_dump(mode="json", exclude={"file"}),
                "file": _content(section.file),
                "sampling": self.recipe.sampling.model_dump(),
            }
        )
        if self._is_done("samples", inputs, self.layout.samples):
            return dict(self.report["samples"])
        from pipelines.draw_samples import sample_cube

        return self._note("samples", sample_cube(self.recipe, tile_digests=digests), inputs)

    def train(self) -> dict[str, Any]:
        """Score and train the classifier."""
        samples = self.report.get("samples")
        if samples is None or not self.layout.samples.exists():
            raise InputError("there are no samples yet; run `canopycube sample` first")
        colours = self.recipe.reference.colours if self.recipe.reference else {}
        inputs = fingerprint(
            {
                "samples": samples["inputs"],
                "training": self.recipe.training.model_dump(),
                "colours": colours,
            }
        )
        if self._is_done("training", inputs, self.layout.classifier):
            return dict(self.report["training"])
        from pipelines.train_model import train_model

        return self._note("training", train_model(self.recipe, self.reporter), inputs)

    def map(self) -> dict[str, Any]:
        """Classify the cube."""
        from pipelines.map_species import map_species, require_classifier

        require_classifier(self.layout.classifier)
        self._tile_digests()
        clip = self.recipe.map.clip and self.recipe.area and self.recipe.area.file
        return self._note(
            "map",
            map_species(
                self.layout.cube,
                self.layout.classifier,
                self.layout.map,
                self.client,
                self.reporter,
                title=self.recipe.name,
                cube_digest=cube_digest(self.layout.cube, self.plan.inputs),
                min_months=self.recipe.map.min_months,
                clip=area_of(self.recipe) if clip else None,
                colours=self.recipe.reference.colours if self.recipe.reference else None,
            ),
        )

    def publish(self) -> dict[str, Any]:
        """Write the map for other programs and for people."""
        made = self.report.get("map")
        if made is None or not self.layout.map.exists():
            raise InputError("there is no map yet; run `canopycube map` first")
        from pipelines.publish_map import publish_map

        inputs = fingerprint({"map": made["digest"], "name": self.recipe.name})
        if self._is_done("published", inputs, self.layout.folder / "map.tif"):
            return dict(self.report["published"])
        return self._note(
            "published", publish_map(self.layout, self.recipe.name, self.reporter), inputs
        )

    def all(self) -> dict[str, Any]:
        """Do every step the recipe asks for; return the report."""
        started = time.perf_counter()
        if self.recipe.reference is not None:
            # settings that cannot be trained are told before the hours of a build
            from pipelines.train_model import train_config

            train_config(self.recipe.training, self.recipe.bands)
        self.build()
        if self.recipe.reference is not None:
            for step in (self.sample, self.train, self.map, self.publish):
                step()
        self._note(
            "run",
            {
                "seconds": round(time.perf_counter() - started, 1),
                "peak_memory_mb": peak_memory_mb(),
            },
        )
        return self.report

    def _tile_digests(self) -> dict[str, str]:
        """Return the digest of every tile of the cube; `InputError` unless it is complete."""
        if not self.layout.cube.exists():
            raise InputError(
                f"there is no cube at {str(self.layout.cube)!r}; run `canopycube build` first"
            )
        records = Ledger(store=self.layout.cube, inputs=self.plan.inputs).records()
        total = len(self.plan.spec.regions())
        if len(records) < total:
            raise InputError(
                f"the cube has {len(records)} of {total} tiles for this recipe; "
                "run `canopycube build` first"
            )
        return {tile: str(record["digest"]) for tile, record in records.items()}

    def _is_done(self, name: str, inputs: str, result: Path) -> bool:
        return result.exists() and self.report.get(name, {}).get("inputs") == inputs

    def _note(self, name: str, found: dict[str, Any], inputs: str | None = None) -> dict[str, Any]:
        self.report["name"] = self.recipe.name
        self.report[name] = found if inputs is None else {**found, "inputs": inputs}
        write_report(self.layout.report, self.report)
        return dict(self.report[name])


@contextmanager
def open_run(recipe: Recipe | Path, reporter: Reporter | None = None) -> Iterator[Run]:
    """Yield the run of a recipe, quiet unless told otherwise, and give its cluster back afterwards.

    Raises `InputError` for a recipe that cannot be read; running out of memory becomes a
    `WorkFailedError` that says what to change.
    """
    read = read_recipe(recipe) if isinstance(recipe, Path) else recipe
    run = Run(read, reporter or Reporter(is_quiet=True))
    try:
        yield run
    except MemoryError as error:
        raise WorkFailedError(
            "the machine ran out of memory; use a smaller composite.tile or fewer cluster.workers"
        ) from error
    finally:
        run.close()


def peak_memory_mb() -> int:
    """Return the largest resident memory of this process or one of its workers, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    most = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return round(most * unit / 1e6)


def _content(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A folder in; a synthetic forest, its recipe and its species map in that folder out."""

from pathlib import Path
from typing import Any

from cube.errors import InputError
from cube.forest import FOREST_CLASSES, ForestSpec, scenes_of, write_forest
from pipelines.progress import Reporter
from pipelines.recipe import read_recipe
from pipelines.run import open_run

FOREST_RECORD = "forest.txt"


def run_demo(
    folder: Path,
    reporter: Reporter,
    *,
    scale: float = 1.0,
    seed: int = 7,
    overrides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Simulate a forest (once), write a recipe for it, carry it out; return the report.

    Raises `InputError` if `folder` holds a forest of another seed or scale.
    """
    spec = ForestSpec(seed=seed, scale=scale)
    record = folder / FOREST_RECORD
    wanted = f"seed {seed} scale {scale}"
    if record.exists() and record.read_text(encoding="utf-8") != wanted:
        raise InputError(
            f"{str(folder)!r} holds a forest of {record.read_text(encoding='utf-8')!r}, asked is "
            f"{wanted!r}; choose another folder"
        )
    if not record.exists():
        if (folder / "forest").exists():
            raise InputError(f"{str(folder / 'forest')!r} exists; choose another folder")
        reporter.say(f"simulating a forest in {folder / 'forest'}")
        folder.mkdir(parents=True, exist_ok=True)
        with reporter.bar("forest", len(scenes_of(spec))) as advance:
            write_forest(folder / "forest", spec, on_scene=lambda done, total: advance())
        record.write_text(wanted, encoding="utf-8")
    recipe_path = folder / "demo.toml"
    recipe_path.write_text(demo_recipe(), encoding="utf-8")
    with open_run(read_recipe(recipe_path, overrides), reporter) as run:
        return run.all()


def demo_recipe() -> str:
    """Return the recipe of the demo as TOML."""
    text = (Path(__file__).parent / "recipes" / "demo.toml").read_text(encoding="utf-8")
    colours = "\n".join(f'{item.name} = "{item.colour}"' for item in FOREST_CLASSES)
    return text.replace("# colours of the forest's classes", colours)

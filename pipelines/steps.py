"""A recipe in, its steps' results kept and told: what is done already is not done again."""

from typing import Any, Generic, TypeVar

from pipelines.layout import Layout
from pipelines.progress import Reporter
from pipelines.recipe import LearningRecipe
from pipelines.report import read_report, write_report

SECTIONS = ("cube", "samples", "audit", "training", "map", "published", "run")
"""The report's sections, in the order in which they follow from each other."""

AnyRecipe = TypeVar("AnyRecipe", bound=LearningRecipe)


class Steps(Generic[AnyRecipe]):
    """What all runs share: the report, and which of its sections still hold.

    The report says of each step what it was made from (`inputs`). A step whose inputs have changed
    takes its own section and all that followed from it out of the report before it starts, so
    nothing stale is ever reported, resumed from or published.
    """

    def __init__(self, recipe: AnyRecipe, reporter: Reporter) -> None:
        self.recipe, self.reporter = recipe, reporter
        self.layout = Layout.of(recipe.outputs)
        self.report = read_report(self.layout.report)

    def _is_done(self, name: str, inputs: str) -> bool:
        return bool(self.report.get(name, {}).get("inputs") == inputs)

    def _begin(self, name: str, inputs: str) -> None:
        """Forget what other inputs gave, and all that followed from it."""
        if self._is_done(name, inputs):
            return
        for later in SECTIONS[SECTIONS.index(name) :]:
            self.report.pop(later, None)
        if self.layout.report.exists():
            write_report(self.layout.report, self.report)

    def _end(self, name: str, inputs: str, found: dict[str, Any]) -> dict[str, Any]:
        self.report["name"] = self.recipe.name
        self.report[name] = {**found, "inputs": inputs}
        write_report(self.layout.report, self.report)
        return dict(self.report[name])

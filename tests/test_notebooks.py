"""The notebooks run in order on a small forest, say what is true, and are stored bare."""

import ast
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
import rasterio
from nbclient import NotebookClient

from cube.mapstore import map_classes, open_map
from pipelines.report import read_report

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = (
    "01_build_a_cube",
    "02_look_at_phenology",
    "03_train_a_classifier",
    "04_read_the_map",
)
SCALE = "0.3"
FIGURES = {
    "01_build_a_cube": 3,
    "02_look_at_phenology": 4,
    "03_train_a_classifier": 3,
    "04_read_the_map": 4,
}


def read_notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook: Any) -> str:
    return "".join(output.text for output in outputs_of(notebook) if output.output_type == "stream")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def executed(workplace: Path) -> dict[str, Any]:
    """Every notebook after it ran, in order, each in a kernel of its own."""
    notebooks = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANOPYCUBE_NOTEBOOK_FOLDER", "forest-year")
        patch.setenv("CANOPYCUBE_NOTEBOOK_SCALE", SCALE)
        # Python starts quiet about these; a user's Jupyter does not
        patch.setenv("PYTHONWARNINGS", "default::RuntimeWarning,default::FutureWarning")
        for name in NAMES:
            notebooks[name] = read_notebook(name)
            NotebookClient(
                notebooks[name],
                timeout=300,
                kernel_name="python3",
                resources={"metadata": {"path": str(workplace)}},
            ).execute()
    return notebooks


def test_there_are_the_four_notebooks_and_no_other() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestStored:
    def test_valid_and_of_readable_length(self, name: str) -> None:
        notebook = read_notebook(name)
        nbformat.validate(notebook)
        assert 8 <= len(notebook.cells) <= 20
        assert notebook.metadata.kernelspec.name == "python3"

    def test_without_outputs(self, name: str) -> None:
        notebook = read_notebook(name)
        assert outputs_of(notebook) == []
        assert {cell.execution_count for cell in notebook.cells if cell.cell_type == "code"} == {
            None
        }

    def test_defines_no_function_and_no_class(self, name: str) -> None:
        tree = ast.parse("\n".join(code_of(read_notebook(name))))
        definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        assert not [node.name for node in ast.walk(tree) if isinstance(node, definitions)]
        assigned = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr)
        ]
        assert not any(isinstance(value, ast.Lambda) for value in assigned)

    def test_uses_public_names_only(self, name: str) -> None:
        tree = ast.parse("\n".join(code_of(read_notebook(name))))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                used |= {alias.name for alias in node.names} | set(str(node.module).split("."))
        assert not {word for word in used if word.startswith("_")}

    def test_names_no_absolute_path(self, name: str) -> None:
        text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
        for cell in json.loads(text)["cells"]:
            source = "".join(cell["source"])
            assert not re.search(r"""["'`(\s](/|~/|[A-Za-z]:\\)\w""", source)
            assert not re.search(r"/(home|tmp|root|work|Users|mnt)/", source)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
class TestExecuted:
    def test_prints_no_warning(self, executed: dict[str, Any], name: str) -> None:
        assert [o.text for o in outputs_of(executed[name]) if o.get("name") == "stderr"] == []
        assert "Warning" not in printed(executed[name])

    def test_draws_its_figures(self, executed: dict[str, Any], name: str) -> None:
        pictures = [o for o in outputs_of(executed[name]) if "image/png" in o.get("data", {})]
        assert len(pictures) == FIGURES[name]


@pytest.mark.slow
def test_a_mistaken_key_is_told_in_one_line(executed: dict[str, Any]) -> None:
    assert "mask.bufer: unknown key; did you mean 'buffer'?" in printed(executed[NAMES[0]])


@pytest.mark.slow
def test_the_lazy_window_is_the_stored_map(executed: dict[str, Any]) -> None:
    assert "pixels with another class: 0\n" in printed(executed[NAMES[3]])


@pytest.mark.slow
def test_the_true_accuracy_is_true(executed: dict[str, Any], workplace: Path) -> None:
    """Count agreement pixel by pixel, by class name, from the files."""
    folder = workplace / "forest-year"
    with rasterio.open(folder / "forest" / "truth" / "classes.tif") as tif:
        truth = tif.read(1)
    names = json.loads((folder / "forest" / "truth" / "classes.json").read_text(encoding="utf-8"))
    mapped = np.asarray(open_map(folder / "map.zarr")["species"])
    legend = {item.value: item.name for item in map_classes(folder / "map.zarr")}
    assert mapped.shape == truth.shape
    right = sum(
        legend.get(int(value)) == names[str(number)]
        for value, number in zip(mapped.flat, truth.flat, strict=True)
    )
    told = re.search(
        r"true accuracy of the map: ([\d.]+) of (\d+) pixels", printed(executed[NAMES[3]])
    )
    assert told is not None
    assert float(told[1]) == pytest.approx(right / truth.size, abs=0.0006)
    assert int(told[2]) == truth.size


@pytest.mark.slow
def test_the_notebooks_made_one_whole_run(executed: dict[str, Any], workplace: Path) -> None:
    del executed
    report = read_report(workplace / "forest-year" / "report.json")
    assert {"cube", "samples", "training", "map", "published", "run"} <= set(report)
    assert report["cube"]["tiles"] == "4 of 4"
    assert report["cube"]["empty_share_by_period"]["2022-07"] == 1
    splits = {entry["split"] for entry in report["training"]["scores"]["entries"]}
    assert splits == {"random", "grouped", "block"}


@pytest.mark.slow
def test_missing_months_stay_gaps(executed: dict[str, Any]) -> None:
    """The table of samples seen has zeros in the months nobody saw, and their columns are there."""
    outputs = outputs_of(executed[NAMES[1]])
    pages = [output.get("data", {}).get("text/html", "") for output in outputs]
    page = next(page for page in pages if "<th>Jul</th>" in page)
    table = ElementTree.fromstring(page[page.index("<table") : page.index("</table>") + 8])
    months = [cell.text for cell in table.findall("thead/tr[1]/th")][1:]
    assert months == [f"{np.datetime64(f'2022-{n:02d}').item():%b}" for n in range(1, 13)]
    rows = table.findall("tbody/tr")
    assert len(rows) == 7
    for row in rows:
        numbers = [int(str(cell.text)) for cell in row.findall("td")]
        counts = dict(zip(months, numbers, strict=True))
        assert counts["Jan"] == counts["Jul"] == 0
        assert counts["Sep"] > 0

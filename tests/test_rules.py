"""Rules of the layout that import-linter cannot say."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for name in ("cube", "model", "pipelines") for path in (ROOT / name).rglob("*.py")]


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_may_do_what(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    place = path.relative_to(ROOT).as_posix()
    imports, calls = set(_imports(tree)), set(_calls(tree))
    assert not imports & {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib"}
    assert not calls & {"eval", "exec", "compile", "__import__"}
    if not place.startswith("cube/stac/"):
        assert not {name for name in imports if name.startswith("odc.stac")}
    if not place.startswith("pipelines/cluster/"):
        assert not {"distributed.LocalCluster", "distributed.as_completed"} & imports
        assert "Client" not in calls
    if not place.startswith("pipelines/"):
        assert "print" not in calls
        assert not {name for name in imports if name.split(".")[0] in ("rich", "tomllib")}


def test_readme_names_what_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    words = sorted((ROOT / "pipelines").glob("commands_*.py"))
    command_line = "".join(path.read_text(encoding="utf-8") for path in words)
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile
    for command in ("init", "plan", "lock", "run", "build", "sample", "train", "map", "publish"):
        assert f'"{command}"' in command_line
    assert (ROOT / "notebooks" / "01_build_a_cube.ipynb").exists()

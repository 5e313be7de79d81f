"""One table export of the real size: `import-table` beside pandas with a Python loop per pixel.

`python -m tests.benchmarks.tables FOLDER` writes one simulated patch of 788,480 rows into FOLDER
once, in every form that is read, and lets both ways read it in turns, each in a fresh process.
Seconds are of the work without imports, processor seconds those of all threads; memory is the peak
of the whole process, and beside it what the process held when its imports were done. The pandas way
is the reference workflow's: a group for each pixel, sorted by date, padded with its last row to
twelve steps. It ends with an array in memory; ours ends with a store on a grid and a report.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet

from tests.benchmarks.rounds import machine, show

sys.path.insert(0, str(Path(__file__).parents[1] / "simulated"))
from changqing_full_size import write_full_size
from changqing_images import FEATURES, MASKED

_ROOT = Path(__file__).parents[2]

STEPS = 12
FORMS = ("raw.csv", "cleaned.csv", "raw.csv.gz", "raw.parquet")


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the tables lie, or are to be written")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=tuple(WAYS), help="one way in this process")
    parser.add_argument("--file", type=Path, help="what that way reads")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.way:
        print(json.dumps(_measured(WAYS[given.way], given.file, given.folder)))
        return
    files = _files(given.folder)
    rows = _comparison(files, given)
    where = machine(["pandas", "pyarrow", "numpy", "zarr"])
    show({"788,480 rows, 78,848 samples of 10 dates": rows}, where=where, as_json=given.json)


def _files(folder: Path) -> dict[str, Path]:
    """Return the table in every form, written if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {form: folder / f"LarchCN_256x256_2022_monthly_patch_0_0_{form}" for form in FORMS}
    if not files["raw.csv"].exists():
        write_full_size(files["raw.csv"])
        write_full_size(files["cleaned.csv"], form="cleaned")
    if not files["raw.csv.gz"].exists():
        subprocess.run(["gzip", "--keep", str(files["raw.csv"])], check=True)
    if not files["raw.parquet"].exists():
        # dates stay text, as pandas makes them of the CSV
        types = {"image_date": "string"}
        table = pyarrow.csv.read_csv(
            files["raw.csv"],
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )
        pyarrow.parquet.write_table(table, files["raw.parquet"])
    return files


def _comparison(files: Mapping[str, Path], given: argparse.Namespace) -> list[Mapping[str, Any]]:
    found: dict[tuple[str, str], list[dict[str, float]]] = {job: [] for job in JOBS}
    for number in range(given.rounds):
        start = number % len(JOBS)
        for job in (*JOBS[start:], *JOBS[:start]):
            way, form = job
            found[job].append(_run(way, files[form], given))
            print(f"round {number + 1}: {way} {form} {found[job][-1]}", file=sys.stderr)
    middle = {
        job: {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        for job, figures in found.items()
    }
    rows = []
    for (way, form), one in sorted(middle.items(), key=lambda item: FORMS.index(item[0][1])):
        ours = middle["import-table", form]
        rows.append(
            {
                "file": form,
                "way": way,
                "seconds": f"{one['seconds']:.1f}",
                "times ours": f"{one['seconds'] / ours['seconds']:.1f}",
                "processor s": f"{one['processor']:.1f}",
                "times ours, processor": f"{one['processor'] / ours['processor']:.1f}",
                "peak MB": f"{one['peak'] / 1e6:.0f}",
                "of it imports MB": f"{one['imports'] / 1e6:.0f}",
            }
        )
    return rows


def _run(way: str, file: Path, given: argparse.Namespace) -> dict[str, float]:
    words = [str(given.folder), "--way", way, "--file", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.tables", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _measured(way: Callable[[Path, Path], None], file: Path, folder: Path) -> dict[str, float]:
    """Run one way in this process; return what it took."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    if way is _ours:
        import pipelines.import_table  # noqa: F401
    imports = _peak()
    began, worked = time.perf_counter(), time.process_time()
    way(file, work)
    figures = {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - worked,
        "peak": _peak(),
        "imports": imports,
    }
    shutil.rmtree(work)
    return figures


def _peak() -> float:
    """Return the largest resident memory of this process so far, in bytes.

    On Linux `ru_maxrss` begins with what the parent process had, so the kernel's own mark is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.0


def _ours(file: Path, work: Path) -> None:
    from pipelines.__main__ import main as command

    if command(["import-table", str(file), "--to", str(work / "imported"), "--json"]):
        raise SystemExit(f"{file} was not imported")


def _pandas(file: Path, work: Path) -> None:
    """Read all, then make the sequences."""
    _sequences(_placed(file), work)


def _workflow(file: Path, work: Path) -> None:
    """The same in the workflow's two steps, a cleaned file between them."""
    table = _placed(file).drop(columns=["system:index", ".geo"])
    features = list(FEATURES)
    table[features] = table[features].replace(MASKED, np.nan).ffill()
    table.to_csv(work / "cleaned.csv", index=False)
    del table
    _sequences(pd.read_csv(work / "cleaned.csv"), work)


def _placed(file: Path) -> pd.DataFrame:
    table = pd.read_csv(file)
    if ".geo" in table.columns:
        points = [json.loads(text)["coordinates"] for text in table[".geo"]]
        table["longitude"], table["latitude"] = np.array(points).T
    return table


def _sequences(table: pd.DataFrame, work: Path) -> None:
    """Make a sequence of each pixel, in a loop, and save them."""
    # rounded as in the workflow's inference: its training took one pixel for several
    table["longitude"], table["latitude"] = table["longitude"].round(6), table["latitude"].round(6)
    sequences: list[np.ndarray] = []
    for _, pixel in table.groupby(["longitude", "latitude"]):
        ordered = pixel.sort_values("image_date")
        values = ordered[list(FEATURES)].to_numpy(np.float32)
        if len(values) < STEPS:
            values = np.vstack([values, np.repeat(values[-1:], STEPS - len(values), axis=0)])
        sequences.append(values[:STEPS])
    np.save(work / "sequences.npy", np.stack(sequences))  # (pixel, time, feature)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "import-table": _ours,
    "pandas": _pandas,
    "pandas, a cleaned file between": _workflow,
}
"""What reads a file, given a folder to write into."""

JOBS = (
    *(("import-table", form) for form in FORMS),
    ("pandas", "raw.csv"),
    ("pandas", "cleaned.csv"),
    ("pandas, a cleaned file between", "raw.csv"),
)


if __name__ == "__main__":
    main(sys.argv[1:])

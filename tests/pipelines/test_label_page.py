"""The page of doubtful labels: names are text, nothing is asked for, what it writes is read."""

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cube.decisions import Decision, read_decisions, write_decisions
from cube.errors import InputError
from cube.relabel import apply_decisions, joined_by_decisions
from cube.samplestore import open_samples, write_samples
from model.doctor.trusted import trusted
from pipelines.__main__ import main
from pipelines.label_doctor import examine_labels, examined_lines
from pipelines.label_findings import TABLE_COLUMNS
from pipelines.label_page import Case, _originals
from pipelines.learning_samples import learning_samples
from pipelines.progress import Reporter
from pipelines.recipe import LearningRecipe

NASTY = "</script><img src=x onerror=\"document.title='broken'\"><!--"
CLASSES = (NASTY, "=larch", "öak")
MONTHS = np.arange("2022-01", "2023-01", dtype="datetime64[M]")


def make_samples(*, groups: int = 45, wrong: tuple[int, ...] = (4, 9, 20)) -> xr.Dataset:
    """Stands of three samples; each class peaks in a season of its own; `wrong` are mislabelled."""
    random = np.random.default_rng(2)
    group = np.repeat(np.arange(groups), 3)
    true = group % 3
    season = np.cos((np.arange(12)[None] - 4 * true[:, None]) / 12 * 2 * np.pi)
    values = np.stack([0.1 + 0.03 * season, 0.35 - 0.05 * season], axis=2)
    values = values + random.normal(0, 0.012, values.shape)
    values[random.random(values.shape[:2]) < 0.1] = np.nan
    given = np.where(np.isin(group, wrong), (true + 1) % 3, true)
    names = np.array([f"stand {number}" for number in range(groups)], dtype="U40")
    names[wrong[0]] = '=HYPERLINK("x")<b>'
    return xr.Dataset(
        {
            "reflectance": (("sample", "time", "band"), values.astype(np.float32)),
            "label": ("sample", np.array(CLASSES)[given]),
            "group": ("sample", names[group]),
            "block": ("sample", np.array([f"e{number // 9}" for number in group])),
            "lon": ("sample", 107.6 + group * 1e-3),
            "lat": ("sample", 33.7 + group * 1e-3),
        },
        coords={
            "time": MONTHS.astype("datetime64[ns]"),
            "period": ("time", MONTHS.astype(str)),
            "band": np.array(["B04", "B08"]),
        },
        attrs={
            "canopycube": {
                "schema": 2,
                "kind": "samples",
                "bands": ["B04", "B08"],
                "periods": MONTHS.astype(str).tolist(),
                "dropped": {},
            }
        },
    )


def recipe_in(folder: Path, **reference: Any) -> LearningRecipe:
    return LearningRecipe.model_validate(
        {
            "name": f"A forest {NASTY}"[:100],
            "outputs": {"folder": str(folder)},
            **({"reference": {"samples": "samples.zarr", **reference}} if reference else {}),
        },
        context={"folder": folder},
    )


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("examined")
    write_samples(folder / "samples.zarr", make_samples())
    found = examine_labels(recipe_in(folder), Reporter(is_quiet=True))
    return folder, json.loads(json.dumps(found, allow_nan=False))


class _Seen(HTMLParser):
    """Elements, and what is in scripts, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.style = ""
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open == "script":
            self.scripts[-1] += data
        if self.open == "style":
            self.style += data


def page_of(folder: Path) -> tuple[str, _Seen, dict[str, Any]]:
    text = (folder / "label_doctor.html").read_text(encoding="utf-8")
    seen = _Seen(text)
    return text, seen, json.loads(seen.scripts[0])


def test_planted_errors_lead_the_table_and_the_summary(
    examined: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = examined
    wrong = {'=HYPERLINK("x")<b>', "stand 9", "stand 20"}
    assert {one["group"] for one in found["most_doubtful"]} == wrong
    assert (found["groups"], found["samples"], found["suspects"]) == (45, 135, 3)
    assert found["noise"] == pytest.approx(3 / 45, abs=0.03)
    assert sum(found["map"].values()) == 45
    lines = examined_lines(found)
    assert lines[0].startswith("3 of 45 labels are doubtful (3 undecided); about ")
    with (folder / "label_doctor.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == TABLE_COLUMNS
    assert len(rows) == 45
    assert {row["group"].lstrip("'") for row in rows[:3]} == wrong
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert not [cell for row in rows for cell in (row["group"], row["given"]) if cell[0] in "=+-@"]
    assert {row["som_verdict"] for row in rows} <= {"clean", "analyse", "remove"}


def test_names_are_text_whatever_they_hold(examined: tuple[Path, dict[str, Any]]) -> None:
    text, seen, data = page_of(examined[0])
    assert "<img" not in text
    assert "<b>" not in text
    assert [tag for tag, _ in seen.elements].count("script") == 2
    assert {one["name"] for one in data["classes"]} == set(CLASSES)
    for _, attributes in seen.elements:
        assert not {name for name in attributes if name.startswith("on")}
        assert not {"src", "href", "action"} & set(attributes)
    assert not re.findall(r"(?:innerHTML|outerHTML|insertAdjacent|document\.write|eval\()", text)


def test_the_page_can_ask_nobody(examined: tuple[Path, dict[str, Any]]) -> None:
    text, seen, _ = page_of(examined[0])
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of a vocabulary
    [policy] = [a["content"] for tag, a in seen.elements if tag == "meta" and "content" in a
                and "http-equiv" in a]  # fmt: skip
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for kind, content in (("script", seen.scripts[1]), ("style", seen.style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_series_and_envelopes_are_quantiles(examined: tuple[Path, dict[str, Any]]) -> None:
    _, _, data = page_of(examined[0])
    samples = make_samples()
    assert [layer["name"] for layer in data["layers"]] == ["NDVI", "B04", "B08"]
    assert data["first_layer"] == 0
    low, step = (np.array([layer[key] for layer in data["layers"]]) for key in ("low", "step"))

    def unpacked(name: str, rows: int) -> np.ndarray:
        stored = np.frombuffer(base64.b64decode(data[name]), "<u2").reshape(rows, 3, 12, 3)
        return np.where(stored == 65535, np.nan, low + step * stored)

    series = unpacked("series", len(data["cases"]))
    for place, case in enumerate(data["cases"]):
        own = samples["reflectance"].values[samples["group"].values == case["group"]]
        for time in range(12):
            for layer, band in ((1, 0), (2, 1)):
                values = own[:, time, band][np.isfinite(own[:, time, band])]
                expected = np.quantile(values, [0.1, 0.5, 0.9]) if values.size else [np.nan] * 3
                np.testing.assert_allclose(series[place, :, time, layer], expected, atol=2e-5)
    doubted = [case["group"] for case in data["cases"]]
    trusted = ~np.isin(samples["group"].values, doubted)
    envelopes = unpacked("envelopes", 3)
    for place, one in enumerate(data["classes"]):
        own = samples["reflectance"].values[trusted & (samples["label"].values == one["name"])]
        expected = np.nanquantile(own, [0.1, 0.5, 0.9], axis=0)
        np.testing.assert_allclose(envelopes[place, :, :, 1:], expected, atol=2e-5)


def test_decisions_are_shown_kept_and_counted(tmp_path: Path) -> None:
    stored = make_samples()
    write_samples(tmp_path / "samples.zarr", stored)
    given = dict(zip(stored["group"].values, stored["label"].values, strict=True))
    made = [
        Decision(group="stand 9", given=str(given["stand 9"]), action="accept", note="seen"),
        Decision(group="elsewhere", given="öak", action="drop"),
    ]
    write_decisions(tmp_path / "d.csv", made)
    found = examine_labels(
        recipe_in(tmp_path), Reporter(is_quiet=True), decisions=tmp_path / "d.csv"
    )
    assert (found["suspects"], found["undecided"]) == (3, 2)
    _, _, data = page_of(tmp_path)
    [case] = [case for case in data["cases"] if case["group"] == "stand 9"]
    assert case["earlier"] == {"action": "accept", "label": "", "note": "seen"}
    assert [row[0] for row in data["earlier"]] == ["stand 9", "elsewhere"]


def test_an_accepted_label_is_doubted_no_more(tmp_path: Path) -> None:
    stored = make_samples()
    given = dict(zip(stored["group"].values, stored["label"].values, strict=True))
    write_decisions(
        tmp_path / "d.csv",
        [Decision(group="stand 9", given=str(given["stand 9"]), action="accept")],
    )
    write_samples(tmp_path / "samples.zarr", apply_decisions(stored, tmp_path / "d.csv"))
    recipe = recipe_in(tmp_path, decisions="d.csv")
    found = examine_labels(recipe, Reporter(is_quiet=True))
    assert (found["suspects"], found["undecided"], found["notes"]) == (2, 2, [])
    _, _, data = page_of(tmp_path)
    [case] = [case for case in data["cases"] if case["group"] == "stand 9"]
    assert case["earlier"]["action"] == "accept"
    samples = learning_samples(tmp_path / "samples.zarr")
    kept = set(samples.group[trusted(samples)].tolist())
    assert samples.is_settled is not None
    assert set(samples.group[samples.is_settled].tolist()) <= kept
    # else models doubt it
    assert len(kept) == 1 + len(set(samples.group[trusted(replace(samples, is_settled=None))]))


def test_decisions_that_samples_do_not_know_are_told(tmp_path: Path) -> None:
    stored = make_samples()
    write_samples(tmp_path / "samples.zarr", stored)
    label = str(stored["label"].values[0])
    decision = Decision(group=str(stored["group"].values[0]), given=label, action="accept")
    write_decisions(tmp_path / "d.csv", [decision])
    found = examine_labels(recipe_in(tmp_path, decisions="d.csv"), Reporter(is_quiet=True))
    assert examined_lines(found)[-1] == (
        "note: decisions changed since sampling; run `canopycube sample`, then look again"
    )


def test_what_the_page_lists_is_what_the_lines_count(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    stored = make_samples(groups=60, wrong=(4, 9, 20, 31))
    noise = random.normal(0, 0.05, stored["reflectance"].shape).astype(np.float32)
    write_samples(
        tmp_path / "samples.zarr", stored.assign(reflectance=stored["reflectance"] + noise)
    )
    found = examine_labels(recipe_in(tmp_path), Reporter(is_quiet=True))
    _, _, data = page_of(tmp_path)
    assert len(data["cases"]) == found["suspects"] + found["by_map_only"]
    assert data["by_map"] == found["by_map_only"]
    told = [line for line in examined_lines(found) if "only the map of series" in line]
    assert bool(told) == bool(found["by_map_only"])


def test_a_fix_is_undone_in_its_own_words(tmp_path: Path) -> None:
    """A group that a decision made wrong is suspected, and what it was before is told."""
    stored = make_samples(wrong=(4,))
    label = str(stored["label"].values[stored["group"].values == "stand 10"][0])
    other = next(name for name in CLASSES if name != label)
    write_decisions(
        tmp_path / "d.csv", [Decision(group="stand 10", given=label, action="fix", label=other)]
    )
    write_samples(tmp_path / "samples.zarr", apply_decisions(stored, tmp_path / "d.csv"))
    examine_labels(recipe_in(tmp_path, decisions="d.csv"), Reporter(is_quiet=True))
    _, _, data = page_of(tmp_path)
    [case] = [case for case in data["cases"] if case["group"] == "stand 10"]
    assert (case["given"], case["suggested"], case["originals"]) == (other, label, [label])
    assert case["earlier"] is None


def test_a_group_of_two_labels_is_decided_in_the_words_of_both(tmp_path: Path) -> None:
    """A fix joins samples that had the class before: what is said next is said of all of them."""
    stored = make_samples(wrong=(4,))
    is_it = np.flatnonzero(stored["group"].values == "stand 10")
    label = stored["label"].values.copy()
    kept = str(label[is_it[0]])
    wrong = next(name for name in CLASSES if name != kept)
    label[is_it[:2]] = wrong  # one of three has the class that the others get
    stored = stored.assign(label=("sample", label))
    write_decisions(
        tmp_path / "d.csv", [Decision(group="stand 10", given=wrong, action="fix", label=kept)]
    )
    mended = apply_decisions(stored, tmp_path / "d.csv")
    assert joined_by_decisions(mended) == {("stand 10", kept)}
    case = Case(
        group="stand 10", given=kept, suggested=wrong, score=1.0, samples=3, agreement=1.0,
        verdict="clean", neuron=0, lon=None, lat=None,
    )  # fmt: skip
    fixes = {("stand 10", kept): [wrong]}
    assert _originals(case, fixes, joined_by_decisions(mended)) == [wrong, kept]
    assert _originals(case, fixes, frozenset()) == [wrong]
    assert _originals(case, {}, frozenset()) == [kept]
    # dropped on the page, both labels go
    write_decisions(
        tmp_path / "d.csv",
        [Decision(group="stand 10", given=name, action="drop") for name in (wrong, kept)],
    )
    assert "stand 10" not in apply_decisions(stored, tmp_path / "d.csv")["group"].values


def test_other_decisions_have_a_browser_memory_of_their_own(tmp_path: Path) -> None:
    stored = make_samples(wrong=(4,))
    write_samples(tmp_path / "samples.zarr", stored)
    label = str(stored["label"].values[0])
    group = str(stored["group"].values[0])
    digests = []
    for note in ("", "", "seen"):
        write_decisions(
            tmp_path / "d.csv", [Decision(group=group, given=label, action="accept", note=note)]
        )
        examine_labels(recipe_in(tmp_path, decisions="d.csv"), Reporter(is_quiet=True))
        text, _, data = page_of(tmp_path)
        digests.append(data["decided"])
    assert digests[0] == digests[1] != digests[2]
    assert "[data.name, data.fingerprint, data.decided].join" in text


def test_wrong_places_are_told_before_the_work(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    reporter = Reporter(is_quiet=True)
    with pytest.raises(InputError, match=r"no samples at .* yet; run `canopycube sample` first"):
        examine_labels(recipe_in(tmp_path / "no"), reporter)
    write_samples(tmp_path / "samples.zarr", make_samples(groups=9, wrong=(4,)))
    with pytest.raises(InputError, match="lies in a folder that does not exist; make it"):
        examine_labels(recipe, reporter, page=tmp_path / "no" / "page.html")
    with pytest.raises(InputError, match=r"d\.csv' cannot be read: No such file"):
        examine_labels(recipe, reporter, decisions=tmp_path / "d.csv")


def test_the_command_tells_machines_and_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path / "stored.zarr", make_samples())
    write_samples(tmp_path / "out" / "samples.zarr", make_samples())
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "x"\n[reference]\nsamples = "stored.zarr"\n[outputs]\nfolder = "out"\n'
    )
    page = tmp_path / "page.html"
    assert main(["label-doctor", str(recipe), "--json", "--page", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == str(page)
    assert found["models"] == ["lda"]
    assert page.exists()
    assert main(["label-doctor", str(recipe), "--model", "oracle"]) == 2
    assert "baseline 'oracle' does not exist" in capsys.readouterr().err


DRIVER = """<script>
const say = (name, value) => document.body.setAttribute("data-" + name, value);
KEYS.a(); KEYS.f(); at("note").value = '=note "with", all'; KEYS.d();
say("table", btoa(unescape(encodeURIComponent(table()))));
say("rows", document.querySelectorAll("#list li").length);
say("lines", document.querySelectorAll("#chart polyline").length);
say("neurons", document.querySelectorAll("#som rect").length);
say("title", document.title);
</script>"""


@pytest.mark.slow
def test_a_browser_shows_it_and_its_file_is_read(
    examined: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium or google-chrome")
    text, _, data = page_of(examined[0])
    # the driver is no part of the page, so its policy would refuse it
    driven = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page = tmp_path / "driven.html"
    page.write_text(driven.replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    shown = dict(_Seen(done.stdout.decode()).elements)["body"]
    assert shown["data-title"] == data["name"] + ": labels to look at"
    assert int(shown["data-rows"] or 0) == len(data["cases"])
    assert int(shown["data-lines"] or 0) >= 3
    assert int(shown["data-neurons"] or 0) == data["som"]["edge"] ** 2 + 1
    decisions = tmp_path / "decisions.csv"
    decisions.write_bytes(base64.b64decode(shown["data-table"] or ""))
    first, second, third = read_decisions(decisions)
    names = [(case["group"], case["given"]) for case in data["cases"]]
    assert [(one.group, one.given) for one in (first, second, third)] == names[:3]
    assert [one.action for one in (first, second, third)] == ["accept", "fix", "drop"]
    assert second.label == data["cases"][1]["suggested"]
    assert third.note == '=note "with", all'
    mended = apply_decisions(open_samples(examined[0] / "samples.zarr"), decisions)
    assert mended.sizes["sample"] == 135 - 3

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.crossvalidate import compare_models
from model.errors import ClassifierError, ConfigError, SampleError
from model.learn import Learned, LearnPlan, learn, refuse_empty_classes
from model.outoffold import OutOfFold
from model.samples import Samples
from model.scoretable import MAJORITY, ScoreTable, SplitScores
from model.split import Folds
from model.verdict import choices_told, verdict

Make = Callable[..., Samples]
COLOURS = ("#1b9e77", "#d95f02", "#7570b3")
PARENTS = {"species 0": "conifers", "species 1": "conifers"}


@pytest.fixture(scope="module")
def samples(make_samples: Make) -> Samples:
    return make_samples(groups=60, noise=0.06)


def plan_of(config: TrainConfig, **more: object) -> LearnPlan:
    settings: dict[str, object] = {
        "colours": COLOURS,
        "baselines": ("lda", "random forest"),
        "parents": PARENTS,
        "folds": 3,
        "measures_importance": False,
    }
    return LearnPlan(config=config, **(settings | more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def learned(samples: Samples, quick: TrainConfig) -> Learned:
    return learn(samples, plan_of(replace(quick, epochs=10), measures_importance=True))


def test_everything_a_report_needs_is_found_and_is_json(learned: Learned) -> None:
    found = json.loads(json.dumps(learned.found, allow_nan=False))
    assert found["split"] == "block"
    assert found["model"] == "lstm"
    models = {entry["model"] for entry in found["scores"]["entries"]}
    assert models == {"lstm", "lda", "random forest", "majority class"}
    splits = {entry["split"] for entry in found["scores"]["entries"]}
    assert splits == {"random", "grouped", "block"}
    assert found["certainty"]["after"]["samples"] == found["scores"]["entries"][-1]["held_out"]
    assert 0.8 < found["certainty"]["conformal"]["share"] <= 1
    assert found["applicability"]["spaces"] == ["features", "hidden"]
    assert found["applicability"]["inside"] > 0.7
    assert len(found["importance"]["months"]) == 12
    assert found["importance"]["enough"] in found["importance"]["months"]
    assert [level["nodes"] for level in found["legend"]["levels"]] == [
        ["conifers", "species 2"],
        ["species 0", "species 1", "species 2"],
    ]
    low, high = (level["accuracy"] for level in reversed(found["legend"]["levels"]))
    assert high >= low


def test_a_saved_classifier_comes_back_whole(
    learned: Learned, samples: Samples, tmp_path: Path
) -> None:
    learned.classifier.save(tmp_path / "classifier")
    again = SpeciesClassifier.load(tmp_path / "classifier")
    assert again.fingerprint == learned.classifier.fingerprint
    assert again.scores == json.loads(json.dumps(learned.found))
    one, two = (
        made.predict_samples(samples.reflectance, samples.bands)
        for made in (learned.classifier, again)
    )
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(again.likely_classes(two), learned.classifier.likely_classes(one))
    inside = again.is_applicable(samples.reflectance, samples.bands)
    assert inside.mean() > 0.7
    foreign = samples.reflectance + np.float32(0.3)
    assert not again.is_applicable(foreign, samples.bands).any()
    assert again.legend.path("species 0") == ("conifers", "species 0")


@pytest.mark.parametrize("key", ["conformal", "calibration", "parents", "applicability", "model"])
def test_a_classifier_edited_by_hand_is_refused(key: str, learned: Learned, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    learned.classifier.save(folder)
    content = json.loads((folder / "classifier.json").read_text())
    content[key] = {"temperature": 2.0} if key == "calibration" else None
    (folder / "classifier.json").write_text(json.dumps(content))
    with pytest.raises(ClassifierError, match="was changed after it was saved; train it again"):
        SpeciesClassifier.load(folder)


def test_auto_ships_the_winner_and_saves_it_without_pickle(
    samples: Samples, quick: TrainConfig, tmp_path: Path
) -> None:
    # one epoch teaches a network next to nothing
    weak = replace(quick, epochs=1, learning_rate=1e-6, **_no_least_steps(quick))
    made = learn(samples, plan_of(weak, model="auto"))
    assert made.found["model"] in ("lda", "random forest")
    assert made.found["verdict"].startswith(made.found["model"])
    assert made.found["verdict"].endswith(
        "chosen among 3 on these samples, so the score is a little flattering."
    )
    made.classifier.save(tmp_path / "classifier")
    assert not [file for file in (tmp_path / "classifier").iterdir() if "pkl" in file.name]
    again = SpeciesClassifier.load(tmp_path / "classifier")
    np.testing.assert_array_equal(
        again.predict_samples(samples.reflectance, samples.bands),
        made.classifier.predict_samples(samples.reflectance, samples.bands),
    )
    right = again.predict_samples(samples.reflectance, samples.bands).argmax(axis=1)
    assert (right == samples.label).mean() > 0.9


def _no_least_steps(config: TrainConfig) -> dict[str, int]:
    return {"least_steps": 0} if hasattr(config, "least_steps") else {}


def test_a_network_that_loses_is_told_to(samples: Samples, quick: TrainConfig) -> None:
    weak = replace(quick, epochs=1, learning_rate=1e-6, **_no_least_steps(quick))
    made = learn(samples, plan_of(weak))
    assert made.found["model"] == "lstm"
    assert " is better: " in made.found["verdict"]
    assert "flattering" not in made.found["verdict"]


def test_the_verdict_says_better_only_where_that_is_clear(
    learned: Learned, samples: Samples
) -> None:
    """The saved model is compared with the best one, whatever the network did."""
    right = samples.label[learned.table.predictions_of("block").index]
    names = ("lstm", "lda", "random forest")
    random = np.random.default_rng(0)

    def table_of(shares: tuple[float, ...]) -> ScoreTable:
        """Give each model a share of right answers; all are asked the same."""
        predictions, entries = [], []
        for name, share in zip(names, shares, strict=True):
            of_block = learned.table.predictions_of("block", name)
            wrong = random.permutation(len(right)) >= round(share * len(right))
            answer = np.where(wrong, (right + 1) % 3, right)
            predictions.append(replace(of_block, probability=np.eye(3, dtype=np.float32)[answer]))
            against = compare_models(samples, predictions[-1], predictions[0])
            entry = learned.table.of("block", name)
            entries.append(replace(entry, against=None if name == "lstm" else against))
        table = replace(learned.table, predictions=tuple(predictions))
        return replace(table, entries=tuple(entries))

    def told(shares: tuple[float, ...]) -> str:
        return verdict(samples, table_of(shares), "random forest", "block").split("year). ")[1]

    assert told((0.3, 0.6, 0.9)) == "No other model that was tried has a higher macro-F1."
    assert told((0.3, 0.95, 0.6)).startswith("lda is better: lda wins by ")
    close = told((0.3, 0.92, 0.9))
    assert close.startswith("lda is ahead, but no difference can be shown: lda is ")
    assert told((0.9, 0.3, 0.5)).startswith("lstm is better: lstm wins by ")


def _told_of(samples: Samples, answers: dict[str, np.ndarray], *, is_of_hull: bool = False) -> str:
    """Return the verdict on the lstm, given what each model answers; groups are held out as knndm."""
    everyone = np.arange(len(samples))
    eye = np.eye(len(samples.classes), dtype=np.float32)
    predictions = [
        OutOfFold(
            split="knndm", model=name, index=everyone, probability=eye[answer], fold=everyone % 3,
            folds=3, folds_used=3, notes=(),
        )
        for name, answer in answers.items()
    ]  # fmt: skip
    entries = [
        SplitScores(
            split="knndm", model=one.model, scores=one.scores(samples), held_out=len(samples),
            folds=3, folds_used=3, notes=(),
            against=None if one.model == "lstm" else compare_models(samples, one, predictions[0]),
        )
        for one in predictions
    ]  # fmt: skip
    folds = Folds(split="knndm", fold=everyone % 3, count=3, notes=(), is_of_hull=is_of_hull)
    table = ScoreTable(entries=tuple(entries), predictions=tuple(predictions), folds=(folds,))
    return verdict(samples, table, "lstm", "knndm")


def test_the_verdict_says_where_one_answer_for_all_is_right_more_often(samples: Samples) -> None:
    """A frequent class makes an accuracy that a model with a higher macro-F1 does not reach."""
    random = np.random.default_rng(0)
    label = np.where(random.random(len(samples)) < 0.7, 1, samples.label)
    frequent = replace(samples, label=label)
    always = np.ones(len(label), np.int64)
    share = f"{(label == 1).mean():.3f}"
    poor = np.where(random.random(len(label)) < 0.5, label, random.integers(0, 3, len(label)))
    told = _told_of(frequent, {"lstm": poor, MAJORITY: always})
    assert f"But naming always 'species 1' is right more often: accuracy {share}, macro-F1" in told
    assert "what lstm has over it is that it finds rarer classes, too. No other model" in told
    told = _told_of(frequent, {"lstm": always, MAJORITY: always})
    assert f"'species 1' is right as often: accuracy {share}" in told
    assert "; lstm tells nothing apart." in told
    assert "naming always" not in _told_of(frequent, {"lstm": label, MAJORITY: always})
    assert "naming always" not in _told_of(frequent, {"lstm": label})
    mixed = np.where(np.arange(len(label)) < 3, 0, 1)  # folds may differ in their frequent class
    assert "naming always the most frequent class" in _told_of(
        frequent, {"lstm": poor, MAJORITY: mixed}
    )


def test_the_verdict_says_which_split_decides_and_what_stood_for_the_map(samples: Samples) -> None:
    right = {"lstm": samples.label}
    order = "(the strictest of the splits made, in the order region, block, knndm, grouped, year)"
    assert f"whole groups, as far away as the map is, held out {order}." in _told_of(samples, right)
    told = _told_of(samples, right, is_of_hull=True)
    assert f"as far away as their hull is, for want of a map, held out {order}." in told


def test_the_verdict_says_what_was_chosen_on_the_samples_that_score() -> None:
    assert choices_told(models=0, trials=1) == ""
    told = choices_told(models=6, trials=20)
    assert "chosen among 6 on these samples, so the score is a little flattering" in told
    assert "chosen among 20 trials on these samples, those of the simple models" in told


def test_a_stopped_run_gives_the_classifier_of_one_that_was_not(
    samples: Samples, quick: TrainConfig, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    config = replace(quick, epochs=5)
    calls = 0

    def stop(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise StoppedError

    plan = plan_of(config, folds=2, baselines=("lda",))
    whole = learn(samples, plan)
    with pytest.raises(StoppedError):
        learn(samples, replace(plan, keep=tmp_path / "keep"), watch=stop)
    resumed = learn(samples, replace(plan, keep=tmp_path / "keep"))
    assert resumed.classifier.fingerprint == whole.classifier.fingerprint
    assert resumed.found == whole.found


def test_what_cannot_be_learned_is_refused(samples: Samples, quick: TrainConfig) -> None:
    with pytest.raises(
        ConfigError, match="model is 'mlp', which is not scored; expected 'network'"
    ):
        plan_of(quick, model="mlp")
    more = replace(samples, classes=(*samples.classes, "yew"))
    share = np.eye(4, dtype=np.float32)[samples.label]
    with pytest.raises(SampleError, match="classes yew have"):
        refuse_empty_classes(replace(more, share=share))
    share[0] = [0.6, 0.0, 0.0, 0.4]
    refuse_empty_classes(replace(more, share=share))
    with pytest.raises(SampleError, match="classes yew have no sample; drop or merge them"):
        learn(more, plan_of(quick, colours=(*COLOURS, "#000000")))

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.errors import ClassifierError, SampleError
from model.learn import train_classifier
from model.samples import Samples

Make = Callable[..., Samples]


@pytest.fixture(scope="module")
def samples(make_samples: Make) -> Samples:
    return make_samples(groups=12)


@pytest.fixture(scope="module")
def classifier(samples: Samples, quick: TrainConfig) -> SpeciesClassifier:
    return train_classifier(
        samples,
        replace(quick, epochs=2, layers=2, bidirectional=True),
        colours=["#1b9e77"] * len(samples.classes),
    )


@pytest.fixture
def saved(classifier: SpeciesClassifier, tmp_path: Path) -> Path:
    folder = tmp_path / "larch" / "classifier"
    classifier.save(folder)
    return folder


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("weights-*.safetensors")
    return path


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the JSON and put a checksum that fits, as someone who reads the code could."""
    path = folder / "classifier.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    content["checksum"] = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content))


def forge_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Replace the weights and everything that refers to them."""
    weights = safetensors.numpy.load_file(weights_file(folder))
    change(weights)
    put_weights(folder, safetensors.numpy.save(weights))


def put_weights(folder: Path, data: bytes) -> None:
    weights_file(folder).unlink()
    digest = sha256(data).hexdigest()
    name = f"weights-{digest[:16]}.safetensors"
    (folder / name).write_bytes(data)
    entry = {"file": name, "sha256": digest, "bytes": len(data)}
    forge(folder, lambda content: content.update(weights=entry))


def test_round_trip_keeps_every_bit(
    classifier: SpeciesClassifier, saved: Path, samples: Samples
) -> None:
    before = torch.get_rng_state()
    loaded = SpeciesClassifier.load(saved)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(
        loaded.predict_samples(samples.reflectance, samples.bands),
        classifier.predict_samples(samples.reflectance, samples.bands),
    )
    for name in ("periods", "classes", "colours", "scores", "sample_fingerprint", "code_version"):
        assert getattr(loaded, name) == getattr(classifier, name)
    assert loaded.fitted.config == classifier.fitted.config
    assert loaded.fingerprint == classifier.fingerprint
    assert loaded.sample_fingerprint == samples.fingerprint


def test_the_same_classifier_gives_the_same_bytes(
    classifier: SpeciesClassifier, saved: Path, tmp_path: Path
) -> None:
    SpeciesClassifier.load(saved).save(tmp_path / "again")
    for file in sorted(saved.iterdir()):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert len(list(saved.iterdir())) == 2


def test_saving_over_a_classifier_leaves_only_the_new_one(
    saved: Path, samples: Samples, quick: TrainConfig
) -> None:
    other = train_classifier(
        samples, replace(quick, epochs=1), colours=["#1b9e77"] * len(samples.classes)
    )
    other.save(saved)
    assert SpeciesClassifier.load(saved).fingerprint == other.fingerprint
    assert len(list(saved.iterdir())) == 2


def test_a_save_that_fails_leaves_the_old_classifier(
    classifier: SpeciesClassifier, saved: Path, samples: Samples, quick: TrainConfig
) -> None:
    other = replace(
        train_classifier(
            samples, replace(quick, epochs=1), colours=["#1b9e77"] * len(samples.classes)
        ),
        scores={"f1": float("nan")},
    )
    with pytest.raises(ClassifierError, match=r"cannot be saved: .*JSON compliant"):
        other.save(saved)
    assert SpeciesClassifier.load(saved).fingerprint == classifier.fingerprint


def test_weights_that_are_not_finite_are_not_saved(
    classifier: SpeciesClassifier, tmp_path: Path
) -> None:
    network = copy.deepcopy(classifier.fitted.network)
    network.head.bias[0] = float("nan")
    broken = replace(classifier, fitted=replace(classifier.fitted, networks=(network,)))
    with pytest.raises(ClassifierError, match="weights are not finite; the training did not"):
        broken.save(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_saving_never_touches_what_is_no_classifier(
    classifier: SpeciesClassifier, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("")
    with pytest.raises(ClassifierError, match="holds something other than a classifier"):
        classifier.save(tmp_path / "thesis")
    with pytest.raises(ClassifierError, match="is a file; a classifier is saved as a folder"):
        classifier.save(tmp_path / "thesis" / "chapter1.tex")


def test_fingerprint_follows_what_a_pixel_is_given(classifier: SpeciesClassifier) -> None:
    recoloured = replace(classifier, colours=("#000000", "#111111", "#222222"))
    assert recoloured.fingerprint == classifier.fingerprint
    renamed = replace(classifier, classes=("a", "b", "c"))
    assert renamed.fingerprint != classifier.fingerprint
    mean = classifier.fitted.preparation.mean + np.float32(0.1)
    preparation = replace(classifier.fitted.preparation, mean=mean)
    shifted = replace(classifier, fitted=replace(classifier.fitted, preparation=preparation))
    assert shifted.fingerprint != classifier.fingerprint


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a classifier file was executed",))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda f: (f / "classifier.json").unlink(), "there is no classifier.json"),
        (lambda f: _cut(f / "classifier.json"), "classifier.json is no whole JSON"),
        (lambda f: (f / "classifier.json").write_text("[" * 100_000), "is no whole JSON"),
        (lambda f: (f / "classifier.json").write_text("[1]"), "holds no JSON object"),
        (lambda f: (f / "classifier.json").write_bytes(b"\xff\xfe{"), "is no whole JSON"),
        (
            lambda f: _edit(f / "classifier.json", "species 1", "larch"),
            "changed after it was saved",
        ),
        (
            lambda f: forge(f, lambda c: c.update(schema=2)),
            "has layout version 2, this program rea",
        ),
        (lambda f: forge(f, lambda c: c.pop("periods")), "has a wrong entry: 'periods'"),
        (lambda f: forge(f, lambda c: c["model"].update(mean="high")), "has a wrong entry"),
        (
            lambda f: forge(f, lambda c: c["model"].update(mean=[0.0], deviation=[1.0])),
            "other than the 16 values",
        ),
        (
            lambda f: forge(f, lambda c: c["model"].update(limit=-1.0)),
            "limit of scaled features is -1.0",
        ),
        (
            lambda f: forge(f, lambda c: c["model"]["config"].update(hidden=0)),
            "hidden is 0; expected 1 to",
        ),
        (
            lambda f: forge(f, lambda c: c["model"]["config"].update(hidden=4096)),
            "the settings call for",
        ),
        (lambda f: forge(f, lambda c: c["model"]["config"].update(run="ls")), r"unknown \['run'\]"),
        (
            lambda f: forge(f, lambda c: c.update(periods=["13"] * 12)),
            "are not months '03' or days",
        ),
        (lambda f: forge(f, lambda c: c.update(colours=["red"] * 3)), "'red' is not of the form"),
        (lambda f: forge(f, lambda c: c["classes"].append("oak")), "weights 'head.bias' are"),
        (
            lambda f: forge(f, lambda c: c["weights"].update(file="../../other")),
            r"weights '../../other' are not there",
        ),
        (lambda f: weights_file(f).unlink(), r"weights 'weights-\w+.safetensors' are not there"),
        (lambda f: _cut(weights_file(f)), "bytes, .* were saved; copy the folder again"),
        (lambda f: _flip(weights_file(f)), "changed after it was saved"),
        (lambda f: put_weights(f, pickle.dumps(_Bomb())), "is no safetensors file"),
        (
            lambda f: forge_weights(f, lambda w: w["network0.head.bias"].fill(np.nan)),
            "weights are not finite",
        ),
        (lambda f: forge_weights(f, lambda w: w.pop("network0.head.bias")), "'head.bias' are None"),
        (
            lambda f: forge_weights(
                f, lambda w: w.update({"network0.extra": np.zeros(1, np.float32)})
            ),
            "the settings call for None",
        ),
        (
            lambda f: forge_weights(
                f,
                lambda w: w.update(
                    {"network0.head.bias": w["network0.head.bias"].astype(np.float64)}
                ),
            ),
            "float64",
        ),
        (
            lambda f: forge_weights(f, lambda w: w.update(more=np.zeros(1, np.float32))),
            "'more' belongs to nothing",
        ),
        (lambda f: forge(f, lambda c: c["model"].update(networks=2)), "2 networks are stored"),
        (lambda f: forge(f, lambda c: c["model"].update(networks=True)), "True networks are stor"),
        (lambda f: forge(f, lambda c: c["model"].update(limit=True)), "scaled features is True"),
        (lambda f: forge(f, lambda c: c["model"].update(steps=11)), "it reads 11 periods; 12 are"),
        (lambda f: forge(f, lambda c: c["periods"].pop()), "it reads 12 periods; 11 are named"),
        (lambda f: forge(f, lambda c: c.update(samples="few")), "hash of the samples is 'few'"),
        (lambda f: forge(f, lambda c: c.update(scores=[1])), r"the scores are \[1\]"),
        (lambda f: forge(f, lambda c: c["model"].update(networks="many")), "'many' networks"),
        (lambda f: forge(f, lambda c: c["model"].update(type="pickle")), "type 'pickle' is not kn"),
        (lambda f: forge(f, lambda c: c["model"].update(type="baseline")), "the stored model lac"),
        (lambda f: forge(f, lambda c: c.update(model=[1])), "has a wrong entry"),
        (lambda f: forge(f, lambda c: c.update(parents={"yew": "tree"})), "'yew', which is no cl"),
        (lambda f: forge(f, lambda c: c.update(parents=[])), "the legend is"),
        (
            lambda f: forge(f, lambda c: c.update(calibration={"temperature": 0})),
            "temperature is 0.0; expected 0.05 to 20",
        ),
        (
            lambda f: forge(
                f, lambda c: c.update(conformal={"coverage": 0.9, "threshold": [1], "groups": [1]})
            ),
            "expected 3 numbers",
        ),
        (lambda f: forge(f, lambda c: c.update(applicability=["features"])), "area of applicab"),
        (
            lambda f: forge(f, lambda c: c["model"]["definitions"].update(B02="B03")),
            "was trained with 'B02' as 'B03'",
        ),
    ],
)
def test_a_damaged_folder_is_refused(
    saved: Path, damage: Callable[[Path], object], text: str
) -> None:
    damage(saved)
    with pytest.raises(ClassifierError, match=text) as caught:
        SpeciesClassifier.load(saved)
    assert str(saved) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match="expected a folder 'train' wrote"):
        SpeciesClassifier.load(tmp_path / "nothing")


def test_a_cube_that_fits_is_accepted(classifier: SpeciesClassifier, samples: Samples) -> None:
    another_year = [f"2019-{month:02d}" for month in range(1, 13)]
    classifier.check_cube((*samples.bands[::-1], "AOT"), another_year)


@pytest.mark.parametrize(
    ("bands", "periods", "text"),
    [
        (
            lambda b: b[:-1],
            lambda m: m,
            r"bands: needs B02 .* B12; the cube has B02 .* B11, lacks B12$",
        ),
        (
            lambda b: b,
            lambda m: [*m[2:], "2023-01", "2023-02"],
            "periods: needs 01 02 .* 12; the cube has 03 04 .* 12 01 02$",
        ),
        (
            lambda b: b,
            lambda m: [*m[:11], "2022-12-01/2022-12-15"],
            r"the cube has 01 .* 11 12-01/12-15$",
        ),
        (
            lambda b: b,
            lambda m: [f"{month}-04T10:30:21" for month in m],
            "cannot be classified: period '2022-01-04T10:30:21' is a single acquisition",
        ),
        (lambda b: b, lambda m: m[:11], "the cube has 01 02 03 04 05 06 07 08 09 10 11$"),
        (lambda b: b[1:], lambda m: m[1:], "lacks B02\nperiods: needs"),
        (lambda b: b, lambda m: m[::-1], "periods cannot be classified: .* periods must rise"),
        (
            lambda b: b,
            lambda m: [*m[:11], "2024-12"],
            "'2024-12' begins more than a year after '2022-11'",
        ),
    ],
)
def test_a_cube_that_does_not_fit_is_refused_with_the_difference(
    classifier: SpeciesClassifier,
    samples: Samples,
    bands: Callable[[tuple[str, ...]], tuple[str, ...]],
    periods: Callable[[list[str]], list[str]],
    text: str,
) -> None:
    with pytest.raises(ClassifierError, match=text):
        classifier.check_cube(bands(samples.bands), periods(list(samples.periods)))


def test_samples_without_a_clear_month_have_no_probability(
    classifier: SpeciesClassifier, samples: Samples
) -> None:
    reflectance = samples.reflectance[:4].copy()
    reflectance[2] = np.nan
    found = classifier.predict_samples(reflectance, samples.bands)
    assert np.isnan(found).all(axis=1).tolist() == [False, False, True, False]
    with pytest.raises(ClassifierError, match=r"reads 12 periods .*; the data have 11"):
        classifier.predict_samples(reflectance[:, 1:], samples.bands)


def test_a_class_without_samples_is_refused(samples: Samples, quick: TrainConfig) -> None:
    two = samples.take(np.flatnonzero(samples.label > 0).astype(np.int64))
    with pytest.raises(SampleError, match="classes species 0 have no sample; drop or merge"):
        train_classifier(two, quick, colours=["#1b9e77"] * len(two.classes))

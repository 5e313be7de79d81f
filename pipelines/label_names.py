"""How a recipe names labels in, kept beside its classifier; labels of another table as classes out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cube.durable import replace_text
from cube.samplestore import open_samples
from model.errors import ClassifierError
from pipelines.recipe import ReferenceSection

NAMES = "labels.json"
"""File in a classifier's folder."""

_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class LabelNames:
    """What training made of labels: `reference.classes` and `reference.drop`."""

    classes: Mapping[str, str] = field(default_factory=dict)
    """Label to class; if there are any, other labels did not train."""
    drop: frozenset[str] = frozenset()
    """Labels that did not train, on purpose."""

    @classmethod
    def of(cls, section: ReferenceSection | None) -> "LabelNames":
        """Return those of a recipe; of samples, also which labels `reference.classes` left out."""
        if section is None:
            return cls()
        drop = set(section.drop)
        if section.samples is not None and section.classes:
            stored = open_samples(section.samples)
            drop |= set(stored["label"].values.astype(str).tolist()) - set(section.classes)
        return cls(classes=dict(section.classes), drop=frozenset(drop))

    def class_of(self, label: str, classes: Sequence[str]) -> str:
        """Return which of `classes` a label is; "" if it was left out of training, or is unknown.

        A table may have the names of labels, or those of classes.
        """
        if label in self.drop:
            return ""
        name = self.classes.get(label, label)
        return name if name in classes else ""

    def leaves_out(self, label: str) -> bool:
        """Say whether training left a label out on purpose."""
        return label in self.drop


def write_label_names(folder: Path, names: LabelNames) -> None:
    """Write the names into a classifier's folder."""
    content = {"classes": dict(names.classes), "drop": sorted(names.drop)}
    replace_text(folder / NAMES, json.dumps(content, indent=1, ensure_ascii=False))


def read_label_names(folder: Path) -> LabelNames:
    """Read the names of a classifier's folder; without the file labels are classes.

    Raises `ClassifierError` for a file that holds something else.
    """
    path = folder / NAMES
    if not path.is_file():
        return LabelNames()
    where = f"classifier {str(folder)!r}: {NAMES}"
    if path.stat().st_size > _MOST_BYTES:
        raise ClassifierError(f"{where} has {path.stat().st_size:,} bytes, far too many")
    try:
        content = json.loads(path.read_bytes())
        classes, drop = content["classes"], content["drop"]
        is_right = isinstance(classes, dict) and isinstance(drop, list)
        texts = [*classes.values(), *drop] if is_right else [None]
    except (ValueError, RecursionError, KeyError, TypeError):
        texts = [None]
    if not all(isinstance(text, str) for text in texts):
        raise ClassifierError(
            f"{where} does not say how labels are named; copy the folder again, or delete that "
            "file if labels are classes"
        )
    return LabelNames(classes=classes, drop=frozenset(drop))

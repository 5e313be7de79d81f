"""Labelled sequences in, an audited and scored classifier out: the steps that need no cube."""

import shutil
import time
from typing import TYPE_CHECKING, Any

from cube.errors import InputError
from cube.ledger import fingerprint
from pipelines.content import content_of_file, content_of_store
from pipelines.label_units import few_groups_notes, refuse_few_groups
from pipelines.memory import peak_memory_mb
from pipelines.steps import AnyRecipe, Steps

if TYPE_CHECKING:
    from pipelines.audit_text import AuditReport

AUDIT_KEYS = ("folds", "splits", "buffer", "seed", "features", "preset", "audit_allow")
"""Keys of `[training]` that decide what an audit finds."""


class Learning(Steps[AnyRecipe]):
    """Sampling, audit and training; here samples are taken from a store of imported ones."""

    def sample(self) -> dict[str, Any]:
        """Store the samples that the recipe asks for."""
        inputs = self._sample_inputs()
        is_done = self._is_done("samples", inputs) and self.layout.samples.exists()
        found = dict(self.report["samples"]) if is_done else {}
        if not is_done:
            self._begin("samples", inputs)
            found = self._draw()
        # folds may have changed since samples were drawn
        notes = few_groups_notes(found["groups_by_class"], self.recipe.training.folds)
        if is_done and found.get("notes") == notes:
            return found
        return self._end("samples", inputs, {**found, "notes": notes})

    def audit(self, what: str) -> "AuditReport":
        """Look for faults of the samples, called `what`; `InputError` if they are not the recipe's."""
        self._stored_samples()
        from pipelines.audit_samples import AuditOptions, audit_run

        options = AuditOptions.of(self.recipe.training, self.layout.cube)
        return audit_run(self.layout.samples, options, what=what)

    def train(self) -> dict[str, Any]:
        """Audit, score and train the classifier."""
        inputs = self._training_inputs()
        if self._is_done("training", inputs) and self._has_classifier():
            self._forget_checkpoints()
            return dict(self.report["training"])
        from pipelines.train_model import check_training, train_model

        check_training(self.recipe)
        refuse_few_groups(self.report["samples"]["groups_by_class"], self.recipe.training)
        found = None
        if self.recipe.training.audit == "off":
            # what an audit found earlier is not said of this classifier
            self._begin("audit", "")
            self._end("audit", "", {"is_off": True, "findings": []})
        else:
            found = self._audited()
            if self.recipe.training.audit == "stop":
                self._refuse_faults(found)
        self._begin("training", inputs)
        made = train_model(self.recipe, self.reporter, audit=found)
        done = self._end("training", inputs, made)
        self._forget_checkpoints()
        return done

    def _forget_checkpoints(self) -> None:
        """Remove what a stopped training would go on from: the classifier is there, and recorded."""
        if self.layout.training.is_dir():
            shutil.rmtree(self.layout.training)

    def all(self) -> dict[str, Any]:
        """Do every step; return the report."""
        started = time.perf_counter()
        self.sample()
        self.train()
        seconds = round(time.perf_counter() - started, 1)
        self._end("run", "", {"seconds": seconds, "peak_memory_mb": peak_memory_mb()})
        return self.report

    def _draw(self) -> dict[str, Any]:
        from pipelines.draw_samples import check_reference, take_samples
        from pipelines.train_model import check_training

        check_training(self.recipe)
        check_reference(self.recipe, None)
        return take_samples(self.recipe)

    def _audited(self) -> dict[str, Any]:
        """Return what an audit finds, done anew only for other samples or folds."""
        training = self.recipe.training.model_dump(include=set(AUDIT_KEYS))
        inputs = fingerprint({"samples": self._stored_samples(), "folds": training})
        if self._is_done("audit", inputs):
            return dict(self.report["audit"])
        from pipelines.audit_samples import audit_stored_samples
        from pipelines.audit_text import check_allowed

        check_allowed(self.recipe.training.audit_allow, given="training.audit_allow")
        self._begin("audit", inputs)
        found = audit_stored_samples(self.layout, self.recipe.training, self.reporter)
        return self._end("audit", inputs, found)

    def _refuse_faults(self, found: dict[str, Any]) -> None:
        from pipelines.audit_text import refuse_severe

        refuse_severe(found, self.recipe.training.audit_allow)

    @property
    def _takes_samples(self) -> bool:
        return self.recipe.reference is not None and self.recipe.reference.samples is not None

    def _sample_inputs(self) -> str:
        """Return the fingerprint of all that decides the samples."""
        section = self.recipe.reference
        if section is None:
            raise InputError("the recipe has no [reference], so there is nothing to sample")
        kept_elsewhere = {"file", "samples", "colours", "legend", "decisions"}
        return fingerprint(
            {
                "reference": section.model_dump(mode="json", exclude=kept_elsewhere),
                "sampling": self.recipe.sampling.model_dump(),
                "decisions": section.decisions and content_of_file(section.decisions),
                **self._origin_of_samples(),
            }
        )

    def _origin_of_samples(self) -> dict[str, Any]:
        """Return what samples are taken from, beside the recipe's own words."""
        assert self.recipe.reference is not None  # the caller has seen to it
        assert self.recipe.reference.samples is not None  # else there is a cube
        return {"samples": content_of_store(self.recipe.reference.samples)}

    def _stored_samples(self) -> str:
        """Return the fingerprint of the samples that are stored; `InputError` without them."""
        inputs = self._sample_inputs()
        if not self._is_done("samples", inputs) or not self.layout.samples.exists():
            raise InputError(
                "there are no samples for this recipe yet; run `canopycube sample` first"
            )
        return inputs

    def _training_inputs(self) -> str:
        training = self.recipe.training.model_dump()
        reference = self.recipe.reference
        legend = reference.legend if reference else {}
        return fingerprint(
            {"samples": self._stored_samples(), "training": training, "legend": legend}
        )

    def _has_classifier(self) -> bool:
        """Return whether the classifier on disk is the one the report speaks of."""
        if not self.layout.classifier.exists():
            return False
        from model.classifier import SpeciesClassifier
        from model.errors import ClassifierError

        try:
            found = SpeciesClassifier.load(self.layout.classifier).fingerprint
        except ClassifierError:
            return False  # damaged: it is trained again
        return found.startswith(self.report["training"]["fingerprint"])

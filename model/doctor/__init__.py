"""Labels and what models and maps say of them in, suspects out: which labels look wrong, and why.

`confident` compares labels with out-of-fold probabilities, `som` with their neighbours on a
self-organising map. Both judge groups (stands, polygons): a group was labelled once, as a whole.
A suspect is a question to somebody who knows the place, never an answer: classes that the bands
cannot tell apart look like wrong labels too.
"""

from model.doctor.confident import (
    Diagnosis,
    confident_joint,
    diagnose,
    find_suspects,
    self_thresholds,
)
from model.doctor.outoffold import doctor_features, pooled_baselines
from model.doctor.som import SelfOrganisingMap, SomConfig, fit_som
from model.doctor.somlabels import VERDICTS, SomVerdicts, judge_labels

__all__ = [
    "VERDICTS",
    "Diagnosis",
    "SelfOrganisingMap",
    "SomConfig",
    "SomVerdicts",
    "confident_joint",
    "diagnose",
    "doctor_features",
    "find_suspects",
    "fit_som",
    "judge_labels",
    "pooled_baselines",
    "self_thresholds",
]

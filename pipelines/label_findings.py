"""A diagnosis, a map's verdicts and the samples in; a table, a page and a summary of them out."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Int64, Shaped

from cube.decisions import Decision, guarded
from cube.palette import default_colours
from cube.relabel import joined_by_decisions, samples_fingerprint
from model.doctor import VERDICTS, Diagnosis, SomVerdicts
from model.features import FEATURES, FeatureSet
from model.samples import Samples
from pipelines.label_page import MOST_CASES, QUANTILES, Case, LabelPage

TABLE_COLUMNS = (
    *("group", "given", "suggested", "score", "is_suspect", "samples", "agreement"),
    *("som_conditional", "som_posterior", "som_verdict", "decision", "lon", "lat"),
)
"""Columns of the table; a row is a group, the most doubtful first."""

_INDICES = ("NDVI", "NDMI", "CIre")
_TOLD = 10
_REMOVE = VERDICTS.index("remove")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelFindings:
    """What was found of the labels of some samples, and how it is told."""

    stored: xr.Dataset
    """The samples as stored."""
    samples: Samples
    """The same, in the same order."""
    names: Shaped[np.ndarray, " group"]
    """Name of each group, by its number in `samples`."""
    diagnosis: Diagnosis
    """By out-of-fold probabilities."""
    verdicts: SomVerdicts
    """By the self-organising map."""
    before: tuple[Decision, ...]
    """Decisions made before."""

    def table(self) -> str:
        """Return all groups as CSV; text that a spreadsheet would run is guarded."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(TABLE_COLUMNS)
        for unit in range(len(self.diagnosis)):
            case, place = self._case(unit), self._place_on_map[unit]
            conditional = self.verdicts.group_conditional[place]
            posterior = self.verdicts.group_posterior[place, self.diagnosis.given[unit]]
            writer.writerow(
                [
                    *(guarded(name) for name in (case.group, case.given, case.suggested)),
                    _figure(case.score),
                    str(bool(self._is_doubted[unit])).lower(),
                    case.samples,
                    _figure(case.agreement),
                    _figure(conditional),
                    _figure(posterior),
                    case.verdict,
                    self._decided.get((case.group, case.given), ""),
                    *("" if value is None else f"{value:.6f}" for value in (case.lon, case.lat)),
                ]
            )
        return text.getvalue()

    def page(self, name: str, colours: Mapping[str, str]) -> LabelPage:
        """Return what the page shows: suspects of either method, the most doubtful first.

        `colours` are those that the recipe gives to classes.
        """
        classes = self.samples.classes
        own = default_colours(len(classes))
        chosen = np.flatnonzero(self._is_listed)
        shown = chosen[:MOST_CASES]
        layers, values = self._layers()
        trusted = ~np.isin(self._unit_of_sample, np.flatnonzero(self._is_doubted))
        members = [trusted & (self.samples.label == index) for index in range(len(classes))]
        return LabelPage(
            title=f"{name}: labels to look at",
            name=name,
            fingerprint=samples_fingerprint(self.stored),
            classes=classes,
            colours=tuple(colours.get(one, own[place]) for place, one in enumerate(classes)),
            layers=layers,
            periods=self.samples.periods,
            envelopes=np.stack([_quantiles(values[is_member]) for is_member in members]),
            cases=tuple(self._case(int(unit)) for unit in shown),
            series=_stacked(
                [_quantiles(values[self._samples_of(int(unit))]) for unit in shown], values
            ),
            edge=round(np.sqrt(len(self.verdicts.share))),
            share=self.verdicts.share,
            decisions=self.before,
            joined=joined_by_decisions(self.stored),
            left_out=len(chosen) - len(shown),
            by_map=int((~self.diagnosis.is_suspect[shown]).sum()),
        )

    def summary(self) -> dict[str, Any]:
        """Return counts and the most doubtful groups as what JSON can hold."""
        found = self.diagnosis
        suspects = [self._case(int(unit)) for unit in np.flatnonzero(self._is_doubted)]
        decided = [one for one in suspects if (one.group, one.given) in self._decided]
        return {
            "groups": len(found),
            "samples": len(self.samples),
            "suspects": len(suspects),
            "undecided": len(suspects) - len(decided),
            "by_map_only": int((self._is_listed & ~found.is_suspect).sum()),
            "noise": round(found.noise, 4),
            "unjudged": found.unjudged,
            "suspects_by_class": {
                name: int((self._is_doubted & (found.given == index)).sum())
                for index, name in enumerate(self.samples.classes)
            },
            "map": {
                name: int((self.verdicts.group_verdict == index).sum())
                for index, name in enumerate(VERDICTS)
            },
            "most_doubtful": [
                {
                    "group": one.group,
                    "given": one.given,
                    "suggested": one.suggested,
                    "score": round(one.score, 4),
                }
                for one in suspects[:_TOLD]
            ],
        }

    @cached_property
    def _decided(self) -> dict[tuple[str, str], str]:
        """What was decided of whole groups, by group and the class they have now."""
        whole = [one for one in self.before if not one.sample]
        fixed = {(one.group, one.label): "fix" for one in whole if one.action == "fix"}
        return fixed | {(one.group, one.given): one.action for one in whole}

    @cached_property
    def _is_doubted(self) -> Bool[np.ndarray, "unit"]:
        """Suspects, but those whose label somebody has accepted or fixed before samples were taken."""
        if self.samples.is_settled is None:
            return self.diagnosis.is_suspect
        is_open = np.zeros(len(self.diagnosis), dtype=bool)
        judged = self._unit_of_sample >= 0
        is_open[self._unit_of_sample[judged & ~self.samples.is_settled]] = True
        doubted: np.ndarray = self.diagnosis.is_suspect & is_open
        return doubted

    @cached_property
    def _unit_of_sample(self) -> Int64[np.ndarray, "sample"]:
        """Unit of the diagnosis of each sample; -1 for those of groups that were not judged."""
        number = {pair: unit for unit, pair in enumerate(self._pairs)}
        both = zip(self.samples.group.tolist(), self.samples.label.tolist(), strict=True)
        return np.array([number.get(pair, -1) for pair in both], np.int64)

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        found = self.diagnosis
        return list(zip(found.group.tolist(), found.given.tolist(), strict=True))

    @cached_property
    def _place_on_map(self) -> Int64[np.ndarray, "unit"]:
        """Place of each unit of the diagnosis among those of the map's verdicts."""
        pairs = zip(self.verdicts.group.tolist(), self.verdicts.group_label.tolist(), strict=True)
        number = {pair: place for place, pair in enumerate(pairs)}
        return np.array([number[pair] for pair in self._pairs], np.int64)

    @property
    def _is_listed(self) -> Bool[np.ndarray, "unit"]:
        """Whom the page shows: suspects, and whom the map would remove and models doubt too."""
        found = self.diagnosis
        is_odd = self.verdicts.group_verdict[self._place_on_map] == _REMOVE
        listed: np.ndarray = found.is_suspect | (is_odd & (found.suggested != found.given))
        return listed

    @cached_property
    def _members(self) -> list[Int64[np.ndarray, "part"]]:
        order = np.argsort(self._unit_of_sample, kind="stable")
        start = np.searchsorted(self._unit_of_sample[order], np.arange(len(self.diagnosis) + 1))
        return [order[first:last] for first, last in pairwise(start)]

    def _samples_of(self, unit: int) -> Int64[np.ndarray, "part"]:
        return self._members[unit]

    def _case(self, unit: int) -> Case:
        found, place = self.diagnosis, self._place_on_map[unit]
        lon, lat = self._middle(self._samples_of(unit))
        return Case(
            group=str(self.names[found.group[unit]]),
            given=self.samples.classes[found.given[unit]],
            suggested=self.samples.classes[found.suggested[unit]],
            score=float(found.score[unit]),
            samples=int(found.samples[unit]),
            agreement=float(found.agreement[unit]),
            verdict=VERDICTS[self.verdicts.group_verdict[place]],
            neuron=int(self.verdicts.group_neuron[place]),
            lon=lon,
            lat=lat,
        )

    def _middle(self, members: Int64[np.ndarray, "part"]) -> tuple[float | None, float | None]:
        """Return lon, lat of the sample in the middle: a mean may lie outside a bent stand."""
        if "lon" not in self.stored or "lat" not in self.stored:
            return None, None
        lon, lat = (self._degrees[name][members] for name in ("lon", "lat"))
        is_known = np.isfinite(lon) & np.isfinite(lat)
        if not is_known.any():
            return None, None
        lon, lat = lon[is_known], lat[is_known]
        nearest = int(np.hypot(lon - np.median(lon), lat - np.median(lat)).argmin())
        return float(lon[nearest]), float(lat[nearest])

    @cached_property
    def _degrees(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(self.stored[name].values, float) for name in ("lon", "lat")}

    def _layers(self) -> tuple[tuple[str, ...], Float32[np.ndarray, "sample time layer"]]:
        """Return the indices that the bands suffice for, then the bands, and their values."""
        samples = self.samples
        indices = [name for name in _INDICES if set(FEATURES[name].bands) <= set(samples.bands)]
        values = samples.reflectance
        if indices:
            computed = FeatureSet(names=tuple(indices)).compute(values, samples.bands)
            values = np.concatenate([computed, values], axis=2)
        return (*indices, *samples.bands), values.astype(np.float32)


def _quantiles(
    values: Float32[np.ndarray, "sample time layer"],
) -> Float32[np.ndarray, "quantile time layer"]:
    """Return `QUANTILES` over the samples that have a value (linear between them), else NaN."""
    found = np.full((len(QUANTILES), *values.shape[1:]), np.nan, np.float32)
    if not len(values):
        return found
    ordered = np.sort(values, axis=0)  # NaN comes last
    last = np.isfinite(values).sum(axis=0) - 1
    for place, quantile in enumerate(QUANTILES):
        at = np.maximum(last, 0) * quantile
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(last, 0))
        low, high = (np.take_along_axis(ordered, which[None], 0)[0] for which in (below, above))
        found[place] = np.where(last >= 0, low + (at - below) * (high - low), np.nan)
    return found


def _stacked(
    parts: list[np.ndarray], like: Float32[np.ndarray, "sample time layer"]
) -> Float32[np.ndarray, "case quantile time layer"]:
    if parts:
        return np.stack(parts)
    return np.empty((0, len(QUANTILES), *like.shape[1:]), np.float32)


def _figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"

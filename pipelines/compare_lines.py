"""A comparison in, the lines that tell people of it out."""

from typing import TYPE_CHECKING

from cube.compare import Agreement, ClearAgreement
from pipelines.compare_cubes import Comparison
from pipelines.compare_verdict import Excess, not_judged
from pipelines.printable import printable

if TYPE_CHECKING:
    from pipelines.compare_labels import Labels

_WHAT = {
    "max_bias": "bias",
    "max_rmse": "RMSE",
    "min_correlation": "correlation",
    "max_clear_difference": "clear difference",
    "min_agreement": "agreement of labels",
}

_HEAD = ("band", "values", "bias", "RMSE", "largest", "within 1", "correlation")
_MOST_PLACES = 6


def comparison_lines(made: Comparison, above: list[Excess], *, is_full: bool = False) -> list[str]:
    """Return what `compare` tells people; `is_full` adds every band and period."""
    lines = [f"A         {made.first}", f"B         {made.second}", *_shared_lines(made)]
    lines += _band_lines(made)
    if is_full:
        lines += _full_lines(made)
    lines += _clear_lines(made)
    if made.labels is not None:
        lines += _label_lines(made.labels, most=None if is_full else 12)
    lines += _unjudged_lines(made)
    return lines + (_excess_lines(above, is_full) if above else ["agree     within all thresholds"])


def _shared_lines(made: Comparison) -> list[str]:
    shared = made.shared
    lines = [
        f"shared    {len(shared.periods)} periods, {len(shared.bands)} bands, "
        f"{shared.shape[0]} y x {shared.shape[1]} x"
    ]
    for name, rest in shared.not_shared().items():
        told = [
            f"{word} {_some(rest[key])}"
            for word, key in (("periods", "periods"), ("bands", "bands"))
            if rest[key]
        ]
        told += [f"{rest['pixels']:,} pixels"] if rest["pixels"] else []
        if told:
            lines.append(f"          only in {name.upper()}: {'; '.join(told)}")
    lines.append("          differences are B - A in the band's unit; 1 stored unit is 0.0001")
    return lines


def _band_lines(made: Comparison) -> list[str]:
    lines = [_row(*_HEAD) + "  worst period by RMSE"]
    by_band: dict[str, list[tuple[str, Agreement]]] = {}
    for band, period, found in made.by_place():
        by_band.setdefault(band, []).append((period, found))
    for band, whole in made.by_band().items():
        worst = max(by_band[band], key=lambda one: -1.0 if one[1].rmse is None else one[1].rmse)
        told = "" if worst[1].rmse is None else f"  {worst[0]} {worst[1].rmse:.5f}"
        lines.append(_row(band, *_figures(whole)) + told)
    return lines


def _full_lines(made: Comparison) -> list[str]:
    width = max(map(len, made.shared.periods))
    lines = [f"{'period':{width}}  {_row(*_HEAD)}"]
    lines += [
        f"{period:{width}}  {_row(band, *_figures(found))}"
        for band, period, found in made.by_place()
    ]
    head = f"{'period':{width}}  one cube only    only A    only B  other clear count"
    return [
        *lines,
        head,
        *(
            f"{period:{width}}  {found.differs:13.3%} {found.only_first:9.3%} "
            f"{found.only_second:9.3%} {found.counts_differ:18.3%}"
            for period, found in made.clear_by_period().items()
        ),
    ]


def _figures(found: Agreement) -> tuple[str, ...]:
    return (
        f"{found.pixels:,}",
        _number(found.bias, "+.5f"),
        _number(found.rmse, ".5f"),
        _number(found.largest, ".4f"),
        _number(found.within_one, ".2%"),
        _number(found.correlation, ".5f"),
    )


def _row(band: str, *figures: str) -> str:
    widths = (13, 9, 8, 8, 9, 12)
    return f"{band:6}" + "".join(
        f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True)
    )


def _number(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)


def _clear_lines(made: Comparison) -> list[str]:
    whole, by_period = ClearAgreement.of_all(made.tally.clear), made.clear_by_period()
    worst = sorted(by_period, key=lambda period: -by_period[period].differs)[:3]
    named = ", ".join(
        f"{one} {by_period[one].differs:.3%}" for one in worst if by_period[one].differs
    )
    return [
        f"clear     {whole.differs:.3%} of pixels and periods are clear in one cube only "
        f"(A {whole.only_first:.3%}, B {whole.only_second:.3%})"
        + (f"; most in {named}" if named else ""),
        f"          {whole.counts_differ:.3%} have another number of clear looks",
    ]


def _label_lines(labels: "Labels", *, most: int | None) -> list[str]:
    share = "none can be compared" if labels.agreement is None else f"{labels.agreement:.3%} agree"
    lines = [
        f"labels    {share} of {labels.both:,} pixels; classified in A only {labels.only_first:,}, "
        f"in B only {labels.only_second:,}"
    ]
    pairs = labels.disagreements()
    lines += [
        f"          {pixels:,} pixels {_plain(one)} in A, {_plain(two)} in B"
        for one, two, pixels in pairs[:most]
    ]
    if most is not None and len(pairs) > most:
        lines.append(f"          and {len(pairs) - most} more pairs; --full names all")
    return lines


def _plain(name: str) -> str:
    """Return a class name on one line, without what a terminal would obey."""
    return printable(name)


def _unjudged_lines(made: Comparison) -> list[str]:
    unjudged, lines = not_judged(made), []
    if unjudged["bands"]:
        lines.append(f"          not judged: {', '.join(unjudged['bands'])} (no reflectance)")
    if unjudged["few_values"]:
        lines.append(f"          too few values to be judged alone: {_some(_few(made, unjudged))}")
    return lines


def _few(made: Comparison, unjudged: dict[str, list[str]]) -> list[str]:
    """Return places with few values; of a period in which every band has few, the period."""
    judged = [band for band in made.shared.bands if band not in unjudged["bands"]]
    told = []
    for period in made.shared.periods:
        places = [
            place for band in judged if (place := f"{band} {period}") in unjudged["few_values"]
        ]
        told += [period] if len(places) == len(judged) else places
    return told


def _excess_lines(above: list[Excess], is_full: bool) -> list[str]:
    lines = []
    for threshold, places in _by_threshold(above).items():
        shown = places if is_full else places[:_MOST_PLACES]
        rest = len(places) - len(shown)
        lines.append(
            f"differ    {_limit(threshold, places[0])}{', '.join(map(_place, shown))}"
            + (f" and {rest} more" if rest else "")
        )
    return lines


def verdict(above: list[Excess]) -> str:
    """Return one line that names each threshold that is exceeded, with its worst place."""
    told = []
    for threshold, places in _by_threshold(above).items():
        rest = f" and {len(places) - 1} more" if len(places) > 1 else ""
        told.append(f"{_limit(threshold, places[0])}{_place(places[0])}{rest}")
    return f"the cubes differ: {'; '.join(told)}"


def _by_threshold(above: list[Excess]) -> dict[str, list[Excess]]:
    """Return the places by threshold, in the order of the thresholds, the worst place first."""
    found: dict[str, list[Excess]] = {}
    for name in (*_WHAT, "values", "labels"):
        if places := [one for one in above if one.threshold == name]:
            found[name] = sorted(places, key=lambda one: -one.size)
    return found


def _limit(threshold: str, one: Excess) -> str:
    if threshold in ("values", "labels"):
        return f"no pixel has a {threshold[:-1]} in both cubes"
    word = "below" if threshold.startswith("min") else "above"
    return f"{_WHAT[threshold]} {word} {one.limit:g}: "


def _place(one: Excess) -> str:
    if one.value is None:
        return ""
    where = " ".join(part for part in (one.band, one.period) if part)
    sign = "+" if one.threshold == "max_bias" else ""
    value = format(one.value, f"{sign}.5g")
    return f"{where} {value}" if where else f"labels {value}"


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""The lineage of a pixel in, the lines that people read out."""

from typing import Any

from pipelines.amounts import some_of
from pipelines.printable import printable


def lineage_lines(found: dict[str, Any]) -> list[str]:
    """Return what `why` prints."""
    lines = [
        f"pixel at x {found['x']:.1f}, y {found['y']:.1f} (lon {found['lon']:.6f}, lat {found['lat']:.6f})"
    ]
    if made := found.get("map"):
        lines += _map_lines(made)
    if made := found.get("cube"):
        lines += _cube_lines(made)
    return [printable(line) for line in lines]


def _map_lines(made: dict[str, Any]) -> list[str]:
    named = made["class"] or "unclassified"
    quality = [
        f"{name} {made[name]:g}"
        for name in ("confidence", "margin", "months_observed", "likely_classes", "applicable")
        if made.get(name) is not None
    ]
    classifier = made["classifier"]
    about = [
        str(classifier.get(key, ""))
        for key in ("model", "trained_by", "first_used")
        if classifier.get(key)
    ]
    samples = str(classifier.get("samples", ""))[:16]
    return [
        f"map   {named}; {', '.join(quality)}" if quality else f"map   {named}",
        f"      {_made_text(made)}, engine {made['engine']}",
        f"      classifier {str(classifier.get('fingerprint'))[:16]}"
        + (f" ({', '.join(about)})" if about else "")
        + (f", of samples {samples}" if samples else ""),
        *_again_lines(made),
    ]


def _cube_lines(made: dict[str, Any]) -> list[str]:
    lines = [f"cube  {_made_text(made)}", *_again_lines(made)]
    for lost in made["lost_scenes"]:
        lines.append(f"      lost: {lost.get('scene')}: {lost.get('reason')}")
    for one in made["periods"]:
        looks = [
            "+".join(look["scenes"]) + (f" {look['time'][:16]}" if look["time"] else "")
            for look in one["scenes"]
        ]
        values = " ".join(
            f"{band} {'-' if value is None else f'{value:.4f}'}"
            for band, value in one["values"].items()
        )
        day = f", mean day {one['mean_day']}" if one["mean_day"] else ""
        share = "" if one["clear_share"] is None else f" ({one['clear_share']} %)"
        lines.append(
            f"      {one['period']}: {one['state']}, {one['clear_count']} clear looks{share}{day}; {values}"
        )
        if looks:
            lines.append(f"        of {len(looks)} looks over the tile: {some_of(looks, 4)}")
    return lines


def _made_text(made: dict[str, Any]) -> str:
    if not made["is_recorded"]:
        return f"tile {made['tile']} has no record: it is not made yet, or nothing vouches for it"
    by = f" by canopycube {made['made_by']}" if made["made_by"] else ""
    when = f" made {made['made_at']}" if made["made_at"] else ""
    return f"tile {made['tile']}{when}{by}"


def _again_lines(made: dict[str, Any]) -> list[str]:
    reasons = made.get("made_again_because")
    if reasons is None:
        return []
    if not reasons:
        return ["      it would be made the same again"]
    return [f"      would be made again: {'; '.join(reasons)}"]

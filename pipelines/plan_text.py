"""What `plan` found in, the lines that tell people of it out."""

from typing import Any

from pipelines.amounts import bytes_text, duration_text, some_of


def plan_lines(found: dict[str, Any]) -> list[str]:
    """Return what `plan` tells people; of several zones one after the other."""
    if "zones" in found:
        return [
            line
            for name, one in found["zones"].items()
            for line in (f"{name}:", *plan_lines(one), "")
        ][:-1]
    shape = " x ".join(f"{size} {dim}" for dim, size in found["shape"].items())
    looks = found["looks_by_period"]
    lines = [
        f"cube      {shape}, {found['resolution']:g} m, {found['crs']}, {found['periods']}",
        f"          bands {' '.join(found['bands'])}",
        _size_line(found),
        f"work      {_tiles_text(found)}; a tile needs up to "
        f"{bytes_text(found['peak_bytes_per_worker'])}, all workers {bytes_text(found['peak_bytes'])}",
        *(f"          {line}" for line in changes_text(found)),
        *_map_lines(found),
        *_time_lines(found),
        f"looks     {some_of([f'{period} {count}' for period, count in looks.items() if count], 24)}",
    ]
    if empty := found["periods_without_scenes"]:
        lines.append(f"          no scene in {some_of(empty)}")
    lines += [f"          {warning}" for warning in found.get("warnings", ())]
    if "scenes" in found:
        dropped = found["scenes_dropped"]
        lines += _reading_lines(found)
        lines.append(f"scenes    {found['scenes']} used, {len(dropped)} not; offsets:")
        lines += [f"          {count} x {reason}" for reason, count in found["offsets"].items()]
        lines += [f"          not used: {name}: {reason}" for name, reason in dropped.items()]
    return lines


def _size_line(found: dict[str, Any]) -> str:
    whole = bytes_text(found["cube_bytes_uncompressed"])
    stored = (
        f"{found['cube_chunks']:,} chunks in {found['cube_objects']:,} files or objects at most"
    )
    if "cube_bytes" not in found:
        return f"          {whole} before compression; {stored}"
    how = "measured" if found["is_calibrated"] else "by experience"
    return (
        f"          {whole}, compressed about {bytes_text(found['cube_bytes'])} ({how}); {stored}"
    )


def _tiles_text(found: dict[str, Any]) -> str:
    tiles, around = found["tiles"], found.get("grid_tiles", found["tiles"])
    text = (
        f"{tiles:,} tiles" if tiles == around else f"{tiles:,} of {around:,} tiles touch the area"
    )
    ready = found.get("tiles_ready", 0)
    return f"{text}, {ready:,} are there" if ready else text


def changes_text(found: dict[str, Any]) -> list[str]:
    """Return why tiles of a cube that is there are made again, and which are taken over."""
    reasons = found.get("tiles_changed_for", {})
    taken, part = found.get("tiles_to_take_over", 0), found.get("tiles_to_make_in_part", 0)
    lines = [f"{tiles:,} tiles again: {reason}" for reason, tiles in reasons.items()]
    if scenes := found.get("scenes_changed"):
        words = [f"{len(ids):,} {name} ({some_of(ids, 2)})" for name, ids in scenes.items()]
        lines.append(f"scenes: {', '.join(words)}")
    if taken or part:
        lines.append(
            f"{taken:,} tiles are taken over whole, {part:,} in part, "
            f"{found['tiles_to_make']:,} are made anew"
        )
    return lines


def _time_lines(found: dict[str, Any]) -> list[str]:
    """Return how long the steps take, or how to find out."""
    if "build_core_hours" not in found:
        return []
    parts = []
    for name, text in (("build", "building"), ("map", "mapping")):
        hours = found.get(f"{name}_core_hours")
        if hours is None:
            continue
        seconds, tiles = found[f"{name}_seconds"], found[f"{name}_measured_tiles"]
        lasts = "" if seconds is None else f", {duration_text(seconds)} with these workers"
        basis = "1 tile" if tiles == 1 else f"{tiles:,} tiles"
        parts.append(f"{text} {_hours(hours)} core hours{lasts} (by {basis} made here)")
    if not found["is_calibrated"]:
        parts.append("not calibrated: `canopycube plan RECIPE --calibrate` makes a tile and tells")
    elif found.get("map_core_hours", 0) is None:
        parts.append("mapping is not calibrated: there is no classifier yet")
    return [f"{'time' if not n else '':10}{part}" for n, part in enumerate(parts)]


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _map_lines(found: dict[str, Any]) -> list[str]:
    if "map_peak_bytes" not in found:
        return []
    if found["map_tiles_at_once"] is None:
        need = f"{bytes_text(found['map_peak_bytes'])} for a thread, however large the cube is"
        return [f"map       a worker of the scheduler needs up to {need}"]
    return [
        f"map       {found['map_tiles_at_once']} tiles under way need up to "
        f"{bytes_text(found['map_peak_bytes'])}, however large the cube is"
    ]


def _reading_lines(found: dict[str, Any]) -> list[str]:
    """Return what a build will ask of the provider."""
    lines = [f"reading   {found['overpasses']} overpasses, from {found['provider']}"]
    if found["requests"] is None:
        lines.append("          requests and bytes are not known for this reader or these files")
    elif found["requests"]:
        headers = found.get("requests_for_headers")
        lines.append(
            f"          {found['requests']:,} requests for {bytes_text(found['bytes_to_read'])}"
            + (f", {headers:,} of them for headers" if headers else "")
            + "; tries that fail come on top"
        )
    if "seconds_at_least" in found:
        lines.append(
            f"          at least {duration_text(found['seconds_at_least'])}, at "
            f"{found['seconds_per_request']:g} s a request and {found['requests_at_once']} at once"
        )
    if found["strips"] > 1:
        lines.append(
            f"          the fullest period takes {found['strips']} strips a tile, which reads "
            "some blocks twice; a larger composite.buffer or smaller tiles do not"
        )
    return lines

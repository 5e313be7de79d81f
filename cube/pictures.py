"""A map store and its legend in, PNG pictures out: the legend, and a quick look at the whole map."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Rectangle
from odc.geo.geobox import GeoBox

from cube.export import class_areas, map_geobox
from cube.mapstore import UNCLASSIFIED, MapClass, check_legend
from cube.place import Place, zarr_place
from cube.sidecar import one_line, rgb

_INK, _FAINT, _GREY = "#222222", "#6b6b6b", "#d9d9d9"
_DPI = 160
_MOST_PIXELS = 1600
_LONGEST_NAME = 44
_MOST_ROWS = 40
# Matplotlib's own font has no Chinese, Japanese or Korean; these are asked for where installed
_FONTS = [
    "DejaVu Sans",
    *sorted(
        {
            "Noto Sans CJK SC",
            "WenQuanYi Zen Hei",
            "Microsoft YaHei",
            "PingFang SC",
            "Arial Unicode MS",
        }
        & {font.name for font in fontManager.ttflist}
    ),
]
# inches
_ROW, _SWATCH, _MARGIN, _GAP = 0.27, 0.30, 0.25, 0.30


def write_legend(
    target: Path, classes: Sequence[MapClass], areas_hectares: Mapping[str, float] | None = None
) -> None:
    """Write the legend as a PNG: colour, name and, if given, hectares and share of each class.

    A legend of more than 40 classes shows the 40 largest (the first 40 without areas) and says
    how many it leaves out. Names are untrusted text and drawn as such, cut after 44 characters.
    """
    check_legend(classes)
    rows = _legend_rows(classes, areas_hectares)
    figure, width = Figure(dpi=_DPI, facecolor="white"), _legend_width(rows)
    height = _ROW * len(rows)
    figure.set_size_inches(width + 2 * _MARGIN, height + 2 * _MARGIN)
    _draw_rows(_axes(figure, _MARGIN, _MARGIN, width, height), rows)
    _save(figure, target)


def write_quicklook(
    target: Path,
    source: Place,
    classes: Sequence[MapClass],
    *,
    title: str,
    longest_inches: int | float = 7.5,
) -> None:
    """Write a PNG of the whole map with legend, scale bar and title; unclassified pixels are grey.

    A map of more than 1600 pixels a side is thinned to every n-th pixel (no class is blended with
    another). Areas beside the legend are pixel counts, see `class_areas`.

    Raises `InputError` if `source` is no map.
    """
    areas = class_areas(source, classes)
    geobox = map_geobox(source)
    rows = _legend_rows(classes, areas)
    height, width = geobox.shape
    pixel_x, pixel_y = _pixel_size(geobox)
    across, down = width * pixel_x, height * pixel_y
    inches = longest_inches / max(across, down)
    # a map one pixel wide still gets a strip one can see
    map_width, map_height = max(across * inches, 0.4), max(down * inches, 0.4)
    legend_width, legend_height = _legend_width(rows), _ROW * len(rows)
    head, foot = 0.62, 0.48
    body = max(map_height, legend_height)
    total = body + head + foot + 2 * _MARGIN

    figure = Figure(dpi=_DPI, facecolor="white")
    sheet_width = max(map_width + _GAP + legend_width, 0.105 * min(len(title), 70)) + 2 * _MARGIN
    figure.set_size_inches(sheet_width, total)
    top = total - _MARGIN - head
    sheet = _axes(figure, 0, 0, sheet_width, total)
    _text(sheet, _MARGIN, total - _MARGIN, _shorten(title, 70), size=13, weight="bold", va="top")
    _text(
        sheet, _MARGIN, total - _MARGIN - 0.28, _describe(geobox), size=7.5, color=_FAINT, va="top"
    )

    axes = _axes(figure, _MARGIN, top - map_height, map_width, map_height)
    axes.imshow(
        _colored(source, classes),
        interpolation="nearest",
        aspect="auto",
        extent=(0, map_width, 0, map_height),
    )
    axes.add_patch(
        Rectangle(
            (0, 0), map_width, map_height, fill=False, edgecolor=_INK, linewidth=0.8, clip_on=False
        )
    )
    _draw_scale_bar(sheet, _MARGIN, top - map_height - 0.14, map_width, across)
    legend_left = _MARGIN + map_width + _GAP
    _draw_rows(_axes(figure, legend_left, top - legend_height, legend_width, legend_height), rows)
    _save(figure, target)


def _legend_rows(
    classes: Sequence[MapClass], areas: Mapping[str, float] | None
) -> list[tuple[str, str, str]]:
    """Return (colour, name, area) of each line of the legend."""
    shown = sorted(classes, key=lambda item: item.value)
    if areas is not None and len(shown) > _MOST_ROWS:
        shown = sorted(shown, key=lambda item: -areas.get(item.name, 0.0))
    total = sum(areas.values()) if areas else 0.0
    rows = [
        (
            item.colour,
            _shorten(item.name, _LONGEST_NAME) or "(no name)",
            _area(areas.get(item.name, 0.0), total) if areas is not None else "",
        )
        for item in shown[:_MOST_ROWS]
    ]
    if len(shown) > _MOST_ROWS:
        rows.append(("", f"and {len(shown) - _MOST_ROWS} more classes", ""))
    rows.append((_GREY, "unclassified", ""))
    return rows


def _area(hectares: int | float, total: int | float) -> str:
    share = 100 * hectares / total if total else 0.0
    return (
        f"{hectares:,.0f} ha · {share:.1f} %"
        if hectares >= 10
        else f"{hectares:.2f} ha · {share:.1f} %"
    )


def _shorten(text: str, longest: int) -> str:
    line = one_line(text)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _pixel_size(geobox: GeoBox) -> tuple[float, float]:
    transform = geobox.transform
    return math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)


def _describe(geobox: GeoBox) -> str:
    height, width = geobox.shape
    crs = geobox.crs
    assert crs is not None  # create_map refuses a grid without one
    name = f"EPSG:{crs.epsg}" if crs.epsg else crs.to_wkt().split('"')[1]
    return f"{width:,} × {height:,} pixels of {_pixel_size(geobox)[0]:g} m · {name}"


def _colored(source: Place, classes: Sequence[MapClass]) -> UInt8[np.ndarray, "y x 3"]:
    array = zarr.open_group(zarr_place(source), mode="r")["species"]
    assert isinstance(array, zarr.Array)  # map_geobox has vouched for the store
    step = max(1, math.ceil(max(array.shape) / _MOST_PIXELS))
    values = np.asarray(array[::step, ::step])
    table = np.full((256, 3), rgb(_GREY), dtype=np.uint8)
    for item in classes:
        table[item.value] = rgb(item.colour)
    table[UNCLASSIFIED] = rgb(_GREY)
    colours: UInt8[np.ndarray, "y x 3"] = table[values]
    return colours


def _axes(
    figure: Figure, left: int | float, bottom: int | float, width: int | float, height: int | float
) -> Axes:
    """Return frameless axes at a place given in inches, whose data units are inches."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / down, width / across, height / down))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def _text(
    axes: Axes, x: int | float, y: int | float, text: str, *, size: int | float, **style: object
) -> None:
    # parse_math=False: a class called "$x$" is a name, not a formula
    options: dict[str, object] = {"color": _INK, "va": "center", "family": _FONTS, **style}
    axes.text(x, y, text, fontsize=size, parse_math=False, **options)  # type: ignore[arg-type]


def _draw_rows(axes: Axes, rows: Sequence[tuple[str, str, str]]) -> None:
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    for number, (colour, name, area) in enumerate(rows):
        middle = height - (number + 0.5) * _ROW
        if colour:
            axes.add_patch(
                Rectangle(
                    (0, middle - 0.075),
                    0.21,
                    0.15,
                    facecolor=colour,
                    edgecolor="#00000055",
                    linewidth=0.5,
                )
            )
        _text(axes, _SWATCH, middle, name, size=9)
        _text(axes, width, middle, area, size=7.5, color=_FAINT, ha="right")


def _legend_width(rows: Sequence[tuple[str, str, str]]) -> float:
    return (
        _SWATCH
        + _text_width([name for _, name, _ in rows], 9)
        + (
            0.25 + _text_width([area for _, _, area in rows], 7.5)
            if any(area for _, _, area in rows)
            else 0
        )
    )


def _text_width(texts: Sequence[str], size: int | float) -> float:
    """Return the width in inches of the widest text."""
    figure = Figure(dpi=_DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    with _quiet_about_glyphs():
        return max(
            figure.text(0, 0, text, fontsize=size, family=_FONTS, parse_math=False)
            .get_window_extent(renderer)
            .width
            / _DPI
            for text in texts
        )


def _draw_scale_bar(
    sheet: Axes, left: int | float, top: int | float, map_width: int | float, across: int | float
) -> None:
    metres = _round_length(across / 4)
    length = metres / across * map_width
    for half, colour in ((0, _INK), (1, "white")):
        sheet.add_patch(
            Rectangle(
                (left + half * length / 2, top - 0.05),
                length / 2,
                0.05,
                facecolor=colour,
                edgecolor=_INK,
                linewidth=0.7,
            )
        )
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    _text(sheet, left + length + 0.08, top - 0.025, label, size=8)


def _round_length(metres: int | float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above `metres`."""
    power = 10.0 ** math.floor(math.log10(metres))
    return max(step * power for step in (1, 2, 5) if step * power <= metres * (1 + 1e-9))


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    with warnings.catch_warnings():
        # a name in a script the font lacks is drawn as boxes; that must not fail a run
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings(
            "ignore", message="Matplotlib currently does not support .* natively"
        )
        yield


def _save(figure: Figure, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    with _quiet_about_glyphs():
        FigureCanvasAgg(figure).print_png(draft)  # type: ignore[no-untyped-call]
    draft.replace(target)

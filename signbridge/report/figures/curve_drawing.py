"""Draw score curves over layers: lines, bands, the peak, and labels that keep apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.report.figures import style
from signbridge.report.figures.axes import layer_axis, value_axis
from signbridge.report.figures.chart import Chart, base
from signbridge.report.figures.plot import Canvas, Plot, build
from signbridge.results.features import UNTRAINED
from signbridge.results.results import Score
from signbridge.statistics.metrics import measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "curve_chart", "curve_plot"]

_LABEL_SIZE = 9.0
_LEGEND_ROW = 0.185  # inches
_CHART_ROOM = 340  # pixels of a chart's axes
_DOT = {"markerfacecolor": "white", "markeredgecolor": style.MUTED, "markeredgewidth": 0.8}


@dataclass(frozen=True)
class Line:
    """What is drawn as one line and labelled at the right end."""

    label: str
    colour: str
    dashes: Any
    scores: tuple[Score, ...]
    main: bool = False

    @property
    def end(self) -> float:
        """Value at the right end."""
        return self.scores[-1].value


def _look(line: Line) -> dict[str, Any]:
    return {"color": line.colour, "linestyle": line.dashes}


def _weight(line: Line) -> str:
    return "bold" if line.main else "normal"


def curve_plot(
    name: str,
    curves: list[Line],
    baselines: list[Line],
    metric: str,
    *,
    heading: str,
    subtitle: str,
    peak: Score | None = None,
    axis: str = "decoder layer (0 = first)",
    bracket: tuple[int, int] | None = None,
    groups: Sequence[Line] = (),
    **words: Any,
) -> Plot:
    """Draw curves over the layers, with baselines as horizontal lines.

    Args:
        name: File name of the figure without suffix.
        curves: Scores over layers; the main one has ``main`` set.
        baselines: Lines of one score that belongs to no layer.
        metric: The metric's name.
        heading: What is drawn.
        subtitle: Model, data and protocol in a few words.
        peak: The score to mark, or None.
        axis: What the layers are called.
        bracket: First and last layer of the interval of the peak's place, drawn at the top.
        groups: What each of a few groups scores, by its name: thin lines over the layers, and for
            the baselines dots beside their intervals. They add a column ``group`` to the data.
        words: Further arguments of :func:`signbridge.report.figures.plot.build`.

    Returns:
        The figure; a row of its data is a score of a line.
    """

    def draw(canvas: Canvas) -> None:
        canvas.heading(heading, subtitle)
        _draw(canvas, metric, curves, baselines, peak, axis, bracket, groups)

    words["chart"] = curve_chart(metric, curves, baselines, axis, peak=peak, groups=groups)
    columns = words.pop("columns")
    rows = [
        (*(getattr(s, column) for column in columns), line.label if line in groups else "")
        for line in (*curves, *baselines, *groups)
        for s in line.scores
        if math.isfinite(s.value)
    ]
    if groups:
        return build(name, draw, columns=(*columns, "group"), rows=rows, **words)
    return build(name, draw, columns=columns, rows=(row[:-1] for row in rows), **words)


def _draw(
    canvas: Canvas,
    metric: str,
    curves: list[Line],
    baselines: list[Line],
    peak: Score | None,
    axis: str,
    bracket: tuple[int, int] | None,
    groups: Sequence[Line],
) -> None:
    figure, narrow = canvas.figure, canvas.narrow
    value_text = {
        id(line): line.label
        + ("" if len(line.scores) > 1 else f" {style.format_value(metric, line.end)}")
        for line in (*curves, *baselines)
    }
    lines = [*curves, *baselines]
    thin = [line for line in groups if line.scores[0].layer is not None]
    ends = [*lines, *thin]
    value_text |= {id(line): style.fit(figure, line.label, 1.6, _LABEL_SIZE) for line in thin}
    if narrow:
        # Beside the axes there is no room: a legend of one line each below them.
        left, right, bottom = 0.58, 0.12, 0.55 + _LEGEND_ROW * len(lines)
    else:
        widest = max(
            style.text_width(figure, value_text[id(line)], _LABEL_SIZE, _weight(line))
            for line in ends
        )
        left, right, bottom = 0.72, widest + 0.5, 0.58
    ax = canvas.axes_between(left, right, bottom)
    layers = sorted({s.layer for line in curves for s in line.scores if s.layer is not None})
    span = max(1, layers[-1] - layers[0])
    dotted = {s.feature for line in groups for s in line.scores}
    bars = [
        line
        for line in baselines
        if line.scores[0].feature not in UNTRAINED
        and (math.isfinite(line.scores[0].ci_low) or line.scores[0].feature in dotted)
    ]
    end = layers[-1] + span * 0.03
    x_max = end + span * 0.035 * (len(bars) + (1 if bars else 0))
    low, high = _limits(metric, [*lines, *groups])
    if bracket is not None:
        high += 0.13 * (high - low)
    layer_axis(ax, layers, 9 if narrow else 17, axis)
    ax.set_xlim(layers[0] - span * 0.03, x_max)
    ax.set_ylim(low, high)
    value_axis(ax.yaxis, metric, 6)
    ax.grid(axis="y")
    if low < 0:
        ax.axhline(0, color=style.MUTED, linewidth=0.8)

    for line in baselines:
        ax.axhline(line.end, color=line.colour, linestyle=line.dashes, linewidth=1.3, zorder=2)
    for i, line in enumerate(bars):
        s = line.scores[0]
        x = end + span * 0.035 * (i + 1)
        ax.plot([x, x], [s.ci_low, s.ci_high], color=line.colour, linewidth=2.4, alpha=0.75)
        ax.plot([x], [s.value], "o", color=line.colour, markersize=3.6)
        dots = [t.value for g in groups for t in g.scores if t.feature == s.feature]
        ax.plot([x] * len(dots), dots, "o", markersize=2.6, zorder=4, **_DOT)
    for line in thin:
        at, values = [s.layer for s in line.scores], [s.value for s in line.scores]
        ax.plot(at, values, color=line.colour, linewidth=0.8, zorder=3)
        ax.plot(at, values, "o", markersize=2.6, zorder=3, **_DOT)
    for line in sorted(curves, key=lambda c: c.main):
        _curve(ax, line, narrow)
    if bracket is not None:
        _bracket(ax, *bracket, span)
    if peak is not None and peak.layer is not None:
        _mark_peak(figure, ax, metric, peak, lines)
    if narrow:
        canvas.legend(
            [
                (value_text[id(line)], _weight(line), _look(line))
                for line in sorted(lines, key=lambda line: -line.end)
            ],
            left,
            _LEGEND_ROW,
        )
    else:
        _end_labels(figure, ax, ends, value_text)


def curve_chart(
    metric: str,
    curves: Sequence[Line],
    baselines: Sequence[Line],
    axis: str,
    *,
    peak: Score | None = None,
    groups: Sequence[Line] = (),
    places: Sequence[Sequence[float]] | None = None,
) -> Chart:
    """Curves for a screen: values on hover, names at the right ends or in a legend below.

    Args:
        metric: The metric's name.
        curves: Scores over layers; main ones have their interval as a band.
        baselines: Lines of one score that belongs to no layer.
        axis: What the layers are called.
        peak: The score to mark, or None.
        groups: Thin lines over the layers.
        places: Where the scores of each curve lie from 0 to 1, if not at their layers.
    """
    layers = sorted({s.layer for line in curves for s in line.scores if s.layer is not None})
    share = measure(metric).is_share
    scale = 100 if share else 1
    thin = [line for line in groups if line.scores[0].layer is not None]
    named = sorted([*curves, *baselines], key=lambda line: -line.end)
    lines = [*named, *thin]
    at = {} if places is None else {id(c): x for c, x in zip(curves, places, strict=True)}
    series = [_series(line, metric, layers, scale, peak, at.get(id(line))) for line in lines]
    for line in curves:
        if line.main and len(line.scores) > 1 and math.isfinite(line.scores[0].ci_low):
            x = at.get(id(line)) or [float(s.layer or 0) for s in line.scores]
            rows = [
                (k, scale * s.ci_low, scale * s.ci_high)
                for k, s in zip(x, line.scores, strict=True)
            ]
            series.append({"type": "custom", "renderItem": "band", "data": rows, "silent": True,
                           "itemStyle": {"color": line.colour}, "z": 1})  # fmt: skip
    low, high = _limits(metric, [*curves, *baselines, *groups])
    ends = [min(max(line.end, low), high) for line in lines]
    unit = (high - low) / _CHART_ROOM
    placed = style.spread(ends, 14 * unit, low, high)
    wide = [
        {"endLabel": {"show": True, "offset": [0, float(end - at) / unit]}}
        for end, at in zip(ends, placed, strict=True)
    ]
    widest = max(len(line.label) for line in lines)
    narrow = 480 if widest < 26 else 660
    option = base(
        xAxis={"type": "value", "min": 0 if at else layers[0],
               "max": 1 if at else max(layers[-1], layers[0] + 1),
               "minInterval": 0 if at else 1, "name": axis, "nameLocation": "middle",
               "nameGap": 26, "splitLine": {"show": False}},
        yAxis={"type": "value", "min": scale * low, "max": scale * high, "axisLabel":
               {"formatter": f"{{value}}{style.PER_CENT}" if share else "{value}",
                "showMinLabel": low == 0, "showMaxLabel": False}},
        series=series,
        legend={"data": [line.label for line in named], "orient": "vertical", "left": 40,
                "bottom": 0, "itemGap": 7, "itemHeight": 10, "padding": 0, "selectedMode": False},
    )  # fmt: skip
    if not at:
        option["tooltip"] |= {"trigger": "axis", "order": "valueDesc"}
    below = 52 + 17 * len(named)
    return Chart(
        {
            "baseOption": option,
            "media": [
                {"query": {"minWidth": narrow}, "option": {
                    "legend": {"show": False},
                    "grid": {"left": 52, "right": min(300, 28 + 6.4 * widest), "top": 16,
                             "bottom": 44},
                    "series": wide}},
                {"option": {
                    "legend": {"show": True},
                    "grid": {"left": 46, "right": 14, "top": 16, "bottom": below},
                    "series": [{"endLabel": {"show": False}}] * len(lines)}},
            ],
        },
        height=(_CHART_ROOM + 60, 280 + below),
        narrow=narrow,
    )  # fmt: skip


def _series(
    line: Line,
    metric: str,
    layers: Sequence[int],
    scale: int,
    peak: Score | None,
    places: Sequence[float] | None,
) -> dict[str, Any]:
    """A line over the layers; a score of no layer is the same at all of them."""
    by_layer = {s.layer: s for s in line.scores}
    data: list[dict[str, Any]] = []
    for layer in layers:
        s = by_layer.get(layer) or by_layer.get(None)
        if s is None:  # a gap
            data.append({"value": [layer, None]})
            continue
        item: dict[str, Any] = {"value": [layer, scale * s.value], "head": f"layer {layer}",
                "tip": f"{line.label}: {style.format_score(metric, s)}"}  # fmt: skip
        if line.main and peak is not None and layer == peak.layer:
            words = f"layer {layer}: {style.format_value(metric, peak.value)}"
            place = (layer - layers[0]) / max(1, layers[-1] - layers[0])
            align = "right" if place > 0.7 else "left" if place < 0.3 else "center"
            label = {"show": True, "formatter": words, "position": "top", "align": align,
                     "fontWeight": "bold"}  # fmt: skip
            item |= {"symbolSize": 11, "label": label}
        data.append(item)
    if places is not None:
        data = [
            {"value": [x, scale * s.value], "head": "",
             "tip": f"{line.label}\nlayer {s.layer}: {style.format_score(metric, s)}"}
            for x, s in zip(places, line.scores, strict=True)
        ]  # fmt: skip
    flat = line.scores[0].layer is None
    return {
        "type": "line", "name": line.label, "data": data, "z": 5 if line.main else 3,
        "symbol": "none" if flat else "circle" if line.main else "rect",
        "symbolSize": 6 if line.main else 4, "showSymbol": len(layers) <= 26 or line.main,
        "itemStyle": {"color": line.colour},
        "lineStyle": {"width": 2.5 if line.main else 1.5, "type": _dash(line.dashes)},
        "endLabel": {"formatter": "{a}", "width": 270, "overflow": "truncate", "color": style.INK,
                     "fontWeight": _weight(line)},
    }  # fmt: skip


def _dash(dashes: Any) -> Any:
    """Matplotlib's dashes, in widths of the line, as the chart's, in pixels."""
    return "solid" if dashes == "-" else [2 * part for part in dashes[1]]


def _limits(metric: str, lines: list[Line]) -> tuple[float, float]:
    values = [
        v
        for line in lines
        for s in line.scores
        for v in (s.value, s.ci_low, s.ci_high)
        if math.isfinite(v)
    ]
    highest, lowest = max(values), min(values)
    if measure(metric).is_share and lowest >= 0:
        return 0.0, min(1.0, highest * 1.18 + 0.02) if highest < 0.9 else 1.04
    room = 0.12 * ((highest - min(0.0, lowest)) or 1.0)
    # A confident wrong probe can be arbitrarily bad: keep the readable part in view.
    floor = max(lowest, -max(highest, 0.5))
    return (0.0 if lowest >= 0 else floor - room / 2), highest + room


def _curve(ax: Axes, line: Line, narrow: bool) -> None:
    x = np.array([s.layer for s in line.scores], dtype=float)
    y = np.array([s.value for s in line.scores])
    low = np.array([s.ci_low for s in line.scores])
    high = np.array([s.ci_high for s in line.scores])
    many = len(x) > (14 if narrow else 26)
    if np.isfinite(low).any():
        if len(x) == 1:
            ax.plot([x[0], x[0]], [low[0], high[0]], color=line.colour, linewidth=2, alpha=0.5)
        elif line.main:
            ax.fill_between(x, low, high, color=line.colour, alpha=0.17, linewidth=0, zorder=1)
    ax.plot(
        x,
        y,
        color=line.colour,
        linestyle=line.dashes,
        linewidth=2.3 if line.main else 1.7,
        marker="o" if line.main else "s",
        markersize=(2.5 if many else 4.5) if line.main else (0 if many else 3.2),
        zorder=5 if line.main else 3,
    )


def _bracket(ax: Axes, first: int, last: int, span: int) -> None:
    """The interval of the peak's place, above the curves."""
    along = ax.get_xaxis_transform()
    left, right = first - 0.008 * span, last + 0.008 * span
    ax.plot([left, right], [0.975, 0.975], color=style.INK, linewidth=1.2, transform=along)
    for x in (left, right):
        ax.plot([x, x], [0.96, 0.99], color=style.INK, linewidth=1.2, transform=along)
    style.text(
        ax,
        (left + right) / 2,
        0.95,
        "95 % interval of the peak’s place",
        transform=along,
        size=8,
        color=style.MUTED,
        va="top",
        ha="left" if left < 0.15 * span else "right" if right > 0.85 * span else "center",
    )


def _mark_peak(figure: Figure, ax: Axes, metric: str, peak: Score, lines: list[Line]) -> None:
    from matplotlib.patheffects import withStroke

    assert peak.layer is not None
    content = f"layer {peak.layer}: {style.format_value(metric, peak.value)}"
    ax.plot(
        [peak.layer],
        [peak.value],
        "o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor=style.INK,
        markeredgewidth=1.4,
        zorder=6,
    )
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = ax.get_window_extent(renderer)
    obstacles = _pixels_of(ax, lines)
    point = np.asarray(ax.transData.transform((peak.layer, peak.value)))
    unit = figure.dpi / 72
    best: tuple[float, Any] | None = None
    for dx, dy, ha, va in (
        (0, 11, "center", "bottom"),
        (-8, 9, "right", "bottom"),
        (8, 9, "left", "bottom"),
        (0, 26, "center", "bottom"),
        (12, 8, "left", "bottom"),
        (0, -11, "center", "top"),
        (-8, -9, "right", "top"),
        (8, -9, "left", "top"),
        (0, -26, "center", "top"),
    ):
        note = ax.annotate(
            content,
            (peak.layer, peak.value),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=ha,
            va=va,
            size=10,
            weight="bold",
            parse_math=False,
            zorder=7,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
        box = note.get_window_extent(renderer).padded(2 * unit)
        out = max(0, frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1)
        far = float(np.hypot(*(np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) - point)))
        cost = box.count_contains(obstacles) * unit + 50 * out + 0.05 * far
        if best is None or cost < best[0]:
            if best is not None:
                best[1].remove()
            best = (cost, note)
        else:
            note.remove()


def _pixels_of(ax: Axes, lines: list[Line]) -> Any:
    """Points along every line, in pixels, some 3 pixels apart."""
    chunks = []
    x_low, x_high = ax.get_xlim()
    for line in lines:
        if len(line.scores) == 1 and line.main and math.isfinite(line.scores[0].ci_low):
            s = line.scores[0]
            x, y = np.full(2, float(s.layer or 0)), np.array([s.ci_low, s.ci_high])
        elif line.scores[0].layer is None:
            x, y = np.array([x_low, x_high]), np.full(2, line.end)
        else:
            x = np.array([s.layer for s in line.scores], dtype=float)
            y = np.array([s.value for s in line.scores])
        points = np.asarray(ax.transData.transform(np.column_stack([x, y])))
        position = np.arange(len(points))
        fine = np.linspace(0, len(points) - 1, 600) if len(points) > 1 else position
        chunks.append(np.column_stack([np.interp(fine, position, points[:, i]) for i in (0, 1)]))
    return np.concatenate(chunks)


def _end_labels(figure: Figure, ax: Axes, lines: list[Line], texts: dict[int, str]) -> None:
    """Name each line beside its right end; names move apart and keep a thin leader."""
    low, high = ax.get_ylim()
    axes_points = ax.get_position().height * figure.get_size_inches()[1] * 72
    unit = (high - low) / axes_points
    wanted = [min(max(line.end, low), high) for line in lines]
    placed = style.spread(wanted, _LABEL_SIZE * 1.3 * unit, low, high)
    inch = 1 / (ax.get_position().width * figure.get_size_inches()[0])
    x_low, x_high = ax.get_xlim()
    for line, start, y in zip(lines, wanted, placed, strict=True):
        last = line.scores[-1].layer
        x0 = 1.0 if last is None else (last - x_low) / (x_high - x_low) + 0.01
        ax.plot(
            [x0, 1 + 0.08 * inch, 1 + 0.20 * inch],
            [start, start, y],
            transform=ax.get_yaxis_transform(),
            color=line.colour,
            linewidth=0.8,
            alpha=0.9 if last is None else 0.45,
            clip_on=False,
        )
        ax.plot(
            [1 + 0.20 * inch, 1 + 0.38 * inch],
            [y, y],
            transform=ax.get_yaxis_transform(),
            color=line.colour,
            linestyle=line.dashes,
            linewidth=2.2,
            clip_on=False,
        )
        style.text(
            ax,
            1 + 0.43 * inch,
            y,
            texts[id(line)],
            transform=ax.get_yaxis_transform(),
            size=_LABEL_SIZE,
            weight=_weight(line),
            va="center",
        )

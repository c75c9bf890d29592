"""One look without global state, and labels that keep apart."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.isotonic import IsotonicRegression

from signbridge.report.figures import style
from signbridge.report.figures.plot import Canvas, build, render

positions = st.lists(st.floats(-3, 3), min_size=1, max_size=12)


@given(positions, st.floats(0.001, 0.4))
def test_spread_is_the_least_squares_solution(wanted: list[float], gap: float) -> None:
    placed = style.spread(wanted, gap, -100, 100)
    order = np.argsort(wanted, kind="stable")
    offsets = gap * np.arange(len(wanted))
    reference = IsotonicRegression().fit_transform(
        np.arange(len(wanted)), np.asarray(wanted)[order] - offsets
    )
    np.testing.assert_allclose(placed[order], reference + offsets, atol=1e-9)


@given(positions, st.floats(0.001, 5))
def test_spread_stays_inside_and_in_order(wanted: list[float], gap: float) -> None:
    placed = style.spread(wanted, gap, -1, 1)
    assert placed.min() >= -1 - 1e-9
    assert placed.max() <= 1 + 1e-9
    ordered = placed[np.argsort(wanted, kind="stable")]
    room = min(gap, 2 / max(1, len(wanted) - 1))
    assert (np.diff(ordered) >= room - 1e-9).all()


@given(st.integers(1, 130), st.integers(6, 20))
def test_labels_at_keeps_both_ends_and_the_limit(n: int, most: int) -> None:
    chosen = style.labels_at(range(n), most)
    assert (chosen[0], chosen[-1]) == (0, n - 1)
    assert len(chosen) <= most + 1
    assert chosen == sorted(set(chosen))


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.8174, "81.7\u00a0%"),
        ("usable_information", -0.0004, "0.000"),
        ("usable_information", -1.234, "−1.23"),
        ("calibration_error", 0.0312, "0.031"),
        ("accuracy", float("nan"), "–"),
    ],
)
def test_format_value(metric: str, value: float, text: str) -> None:
    assert style.format_value(metric, value) == text


@given(st.text(max_size=40), st.integers(1, 20))
def test_short_names_are_printable_and_short(name: str, limit: int) -> None:
    result = style.short(name, limit)
    assert 1 <= len(result) <= max(limit, 2)
    assert result.translate({0x200C: None, 0x200D: None}).isprintable()


def _draw(canvas: Canvas) -> None:
    ax = canvas.axes(0.2, 0.1, 1.6, 0.8)
    ax.plot([0, 1], [0, 1])
    style.text(ax, 0.2, 0.5, r"$\frac{ $ x_{ \notacommand")


def test_settings_of_the_caller_neither_matter_nor_change() -> None:
    import matplotlib

    plain = render(_draw, 2, 1)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        other = render(_draw, 2, 1)
        assert dict(matplotlib.rcParams) == before
    assert plain.png == other.png
    assert Image.open(io.BytesIO(plain.png)).size == (plain.width, plain.height) == (400, 200)


def test_importing_the_package_is_light_and_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys, signbridge.report as r\n"
        "heavy = {'matplotlib', 'umap', 'numba', 'torch', 'sklearn', 'jinja2', 'rich', 'h5py'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from signbridge.report.figures.plot import render\n"
        "render(lambda canvas: None, 1, 1)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_drawn_twice_is_written_once() -> None:
    """One figure of both widths, its data, and areas where the data lie."""
    widths = []

    def draw(canvas: Canvas) -> None:
        widths.append((canvas.width, canvas.narrow))
        canvas.heading("title", "a subtitle")
        ax = canvas.axes_between(0.5, 0.5, 0.5)
        ax.set_xlim(0, 4)
        ax.set_ylim(10, 0)  # downwards, as of a picture
        canvas.spot(ax, 1.0, 5.0, "point", 3)
        canvas.spot(ax, (-9.0, 2.0), (0.0, 5.0), "half")
        canvas.spot(ax, None, (0.0, 10.0), "row")
        canvas.layer_spots(ax, [1, 3], {1: "one", 3: "three"}.get)

    plot = build(
        "name",
        draw,
        title="",
        caption="",
        alt="",
        height=(3.0, 2.0),
        columns=("real", "imag"),
        rows=[(float("nan"), None), 2 + 1j],
    )
    assert widths == [(8.0, False), (4.2, True)]
    assert plot.csv() == "real,imag\n,\n2.0,1.0\n"
    assert (plot.wide.width, plot.wide.height) == (1600, 600)
    assert (plot.narrow.width, plot.narrow.height) == (840, 400)
    point, half, row, one, three = plot.wide.spots
    assert (point.x, point.width, point.thumbnail) == (pytest.approx(0.5 / 8 + 7 / 8 / 4), 0, 3)
    assert (half.x, half.width) == (pytest.approx(0.5 / 8), pytest.approx(7 / 8 / 2))
    assert half.y + half.height == pytest.approx(point.y)
    assert (row.x, row.width, row.height) == (0, 1, pytest.approx(2 * half.height))
    assert (one.text, three.text) == ("one", "three")
    assert one.x + one.width == pytest.approx(three.x) == pytest.approx(0.5 / 8 + 7 / 8 / 2)

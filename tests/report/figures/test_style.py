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
    assert result.isprintable()


def _draw(figure: object) -> list[object]:
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))  # type: ignore[attr-defined]
    ax.plot([0, 1], [0, 1])
    style.text(ax, 0.2, 0.5, r"$\frac{ $ x_{ \notacommand")
    return []


def test_settings_of_the_caller_neither_matter_nor_change() -> None:
    import matplotlib

    plain = style.render(_draw, 2, 1)  # type: ignore[arg-type]
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        other = style.render(_draw, 2, 1)  # type: ignore[arg-type]
        assert dict(matplotlib.rcParams) == before
    assert plain.png == other.png
    assert Image.open(io.BytesIO(plain.png)).size == (plain.width, plain.height) == (400, 200)


def test_importing_the_package_is_light_and_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys, signbridge.report as r\n"
        "heavy = {'matplotlib', 'umap', 'numba', 'torch', 'sklearn', 'jinja2', 'rich', 'h5py'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from signbridge.report.figures import style\n"
        "style.render(lambda f: [], 1, 1)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

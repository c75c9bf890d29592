"""Charts that answer to pointer and keyboard: options of Apache ECharts, drawn by ``chart.js``.

A figure that has a :class:`Chart` shows it on a screen; its picture is what is printed, and what a
reader without scripts sees. ``report/vendor/README.md`` says why this library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from signbridge.report.figures import style
from signbridge.runtime.terminal import visible

__all__ = ["Chart", "base", "embedded", "tip"]


@dataclass(frozen=True)
class Chart:
    """A chart of the page.

    An item of a series may hold ``tip``, what the pointer shows of it (text, lines parted by line
    breaks), and ``image``, the row of its image. ``renderItem`` may be
    ``band`` (items: x, low, high) or ``interval`` (items: x, low, high), which ``chart.js`` draws.

    Attributes:
        option: The library's option, as of its ``setOption``; what is NaN is left out.
        height: Pixels of the chart where it is wide and where it is narrow.
        narrow: Pixels of width below which it is narrow.
        frames: What a slider below it chooses from: a name, such as ``layer 3``, and the part of
            the option that changes. Points with the same ``id`` move from frame to frame.
        frame: The frame that is shown first.
        columns: Items in a row of a matrix, so that the arrow keys move up and down in it too.
        map: The points of a map, which ``map.js`` draws.
    """

    option: Mapping[str, Any]
    height: tuple[int, int]
    frames: Sequence[tuple[str, Mapping[str, Any]]] = ()
    frame: int = 0
    columns: int = 0
    map: Mapping[str, Any] | None = None
    narrow: int = 480

    def json(self) -> str:
        """What ``chart.js`` reads, safe inside an element ``script``."""
        content = {
            "option": self.option,
            "height": self.height,
            "frames": [{"name": name, "option": option} for name, option in self.frames],
            "frame": self.frame,
            "columns": self.columns,
            "map": self.map,
            "narrow": self.narrow,
        }
        return embedded(content)


def embedded(value: Any) -> str:
    """A value as JSON that is safe inside an element ``script``."""
    text = json.dumps(_clean(value), ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _clean(value: Any) -> Any:
    """JSON's values: NaN as null, control characters of text from data spelt out."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, str):
        return "\n".join(map(visible, value.split("\n")))
    if isinstance(value, Mapping):
        return {key: _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value


def base(**option: Any) -> dict[str, Any]:
    """What all charts share: type, colours of text and axes, the tip; ``option`` adds to it."""
    return {
        "animationDuration": 0,
        "animationDurationUpdate": 500,
        "textStyle": {"color": style.INK, "fontFamily": "system-ui, sans-serif"},
        "tooltip": {"trigger": "item", "confine": True, "transitionDuration": 0},
        **option,
    }


def tip(*lines: str) -> str:
    """Lines that the pointer shows, empty ones left out."""
    return "\n".join(line for line in lines if line)

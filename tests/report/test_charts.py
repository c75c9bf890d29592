"""The charts of the page: the library as it was vendored, and what a browser makes of them."""

from __future__ import annotations

import hashlib
from importlib import resources

from signbridge.report.figures.chart import Chart, base, tip

VENDOR = resources.files("signbridge.report") / "vendor"


def test_the_library_is_the_one_that_was_vendored_with_its_licences() -> None:
    content = (VENDOR / "echarts.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == (
        "49889eb1a696db491ba6d59f830d78d7205f1861e6ad588424cc9098c444bc54"
    )
    assert b"</script" not in content
    assert b"eval(" not in content
    licence = (VENDOR / "LICENSE").read_text(encoding="utf-8")
    for words in ("Apache License", "BSD 3-Clause License", "tslib", "NOTICE"):
        assert words in licence


def test_a_chart_is_safe_inside_a_script_and_holds_no_nan() -> None:
    data = [{"value": [0, float("nan")], "tip": tip("</script><b>", "", "a\x1bb")}]
    text = Chart(base(series=[{"type": "line", "data": data}]), (1, 1)).json()
    assert "<" not in text
    assert '"value":[0,null]' in text
    assert "\\u003c/script>\\u003cb>\\na\\\\x1bb" in text

"""The page: whole, self-contained, safe, and honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from signbridge.errors import ProbeError, StoreError
from signbridge.report import write_report
from signbridge.report.figures import umap as umap_figure
from signbridge.results.results import load_results

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects elements, their attributes and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            if "type" not in self.elements[-1][1]:  # data is no script
                self.raw[self.open[-1]].append(data)
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(autouse=True)
def _no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """UMAP compiles for seconds and has its own tests."""

    def plane(vectors: np.ndarray, seed: int, start: object) -> tuple[np.ndarray, str]:
        return np.asarray(vectors, dtype=float)[:, :2], "UMAP"

    monkeypatch.setattr("signbridge.report.html.warm_up", lambda: None)
    monkeypatch.setattr(umap_figure, "embed", plane)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, results_dir: Path) -> Path:
    """The page of a folder whose store has moved; not to be written to."""
    folder = tmp_path_factory.mktemp("written") / "results"
    shutil.copytree(results_dir, folder)
    return write_report(folder)


def test_report_with_store(
    make_results: Callable[..., Path], make_store: Callable[..., Path]
) -> None:
    folder = make_results(class_names=list("ABCDEF"))
    make_store(folder)
    path = write_report(folder)
    assert path == folder / "report.html"
    expected = {
        *("calibration", "cka", "class_grid", "confusion", "layer_curve", "leakage"),
        *("accuracy_by_group", "umap", "usable_information"),
    }
    files = {f.name for f in (folder / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in expected for kind in ("png", "csv")}
    page = Page(path.read_text(encoding="utf-8"))
    assert {f["id"] for f in page.all("figure")} == expected
    assert '"0":"data:image/png;base64,' in path.read_text(encoding="utf-8")


def test_the_figures_on_the_page_are_the_files(report: Path) -> None:
    folder, page = report.parent, Page(report.read_text(encoding="utf-8"))
    sources = [base64.b64decode((i["src"] or "").partition(",")[2]) for i in page.all("img")]
    assert len(sources) == len(list((folder / "figures").glob("*.png")))
    assert all(source.startswith(b"\x89PNG") for source in sources)
    tables = [
        base64.b64decode((a["href"] or "").partition(",")[2])
        for a in page.all("a")
        if a.get("download")
    ]
    for table in (folder / "figures").glob("*.csv"):
        assert table.read_bytes() in tables


def test_page_is_self_contained(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    for _, attrs in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            if value := attrs.get(name):
                assert value.startswith(("data:", "#"))
    places = {attrs.get("id") for _, attrs in page.elements}
    assert {a["href"][1:] for a in page.all("a") if (a["href"] or "")[0] == "#"} <= places
    assert "@import" not in text
    assert "url(" not in "".join(page.raw["style"])
    assert all(i.get("alt") is not None for i in page.all("img"))


def test_policy_allows_only_the_own_script_and_style(report: Path) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    policy = next(
        m["content"] or ""
        for m in page.all("meta")
        if m.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        allowed = [
            "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"
            for content in page.raw[kind]
        ]
        assert f"{kind}-src {' '.join(allowed)}" in policy


def test_missing_store_is_said_and_the_rest_is_there(report: Path) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    assert "activations/tiny-sample.h5 was not found" in page.text
    assert "umap" not in {f["id"] for f in page.all("figure")}
    assert (report.parent / "figures" / "class_grid.png").exists()


def test_another_store_is_refused_or_noted(
    make_results: Callable[..., Path], make_store: Callable[..., Path]
) -> None:
    folder, other = (
        make_results("one", class_names=list("ABC")),
        make_results("two", class_names=list("AB")),
    )
    store = make_store(other)
    with pytest.raises(ProbeError, match="is not the store that the probes"):
        write_report(folder, store)
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["path"] = str(store)
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "is not the store that the probes" in write_report(folder).read_text(encoding="utf-8")


def test_a_store_path_that_is_no_store(make_results: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("no store")
    with pytest.raises(StoreError):
        write_report(make_results(), path)


def test_unreadable_results_leave_nothing_behind(make_results: Callable[..., Path]) -> None:
    folder = make_results()
    (folder / "scores.csv").write_text("")
    with pytest.raises(ProbeError):
        write_report(folder)
    assert not (folder / "report.html").exists()
    assert not (folder / "figures").exists()


def test_folder_that_cannot_be_written(make_results: Callable[..., Path]) -> None:
    folder = make_results(class_names=list("AB"), layers=[0])
    (folder / "figures").write_text("a file where the folder should be")
    with pytest.raises(ProbeError, match="cannot be written"):
        write_report(folder)


def test_what_a_sweep_could_not_measure_is_left_out(make_results: Callable[..., Path]) -> None:
    folder = make_results(class_names=list("AB"), layers=[0], random_split=False, baselines=())
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    for key in ("nested", "leakage", "chance", "majority", "sklearn_default", "command"):
        summary[key] = None
    summary["best_layer"] |= {"accuracy": None, "ci": [None, None]}
    summary["store"] |= {"n_groups": None, "provenance": {}}
    path.write_text(json.dumps(summary))
    text = Page(write_report(folder).read_text(encoding="utf-8")).text
    assert "None" not in text
    assert "nan" not in text.lower().replace("provenance", "")
    assert "Make it again" not in text


def test_every_accuracy_is_in_the_table(report: Path) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    for s in load_results(report.parent).scores:
        if s.metric == "accuracy":
            assert f"{100 * s.value:.1f}" in page.text


@pytest.mark.slow
def test_everything_of_the_newer_format_is_on_the_page(
    make_results: Callable[..., Path], make_store: Callable[..., Path]
) -> None:
    folder = make_results(full=True, class_names=list("ABCDEF"), layers=range(4))
    make_store(folder)
    page = Page(write_report(folder, umap="all").read_text(encoding="utf-8"))
    assert {f["id"] for f in page.all("figure")} == {
        *("layer_curve", "leakage", "memorisation", "selectivity", "differences", "peak"),
        *("usable_information", "class_grid", "confusion", "calibration", "umap_layers"),
        *("cka", "accuracy_by_group"),
    }
    for words in (
        "what does tiny know of the class at each decoder layer",
        "random weights",
        "Do probes memorise",
        "permutation",
        "minus raw pixels",
        "scikit-learn",
        "Make it again",
    ):
        assert words in page.text
    assert (folder / "figures" / "umap_layers.csv").exists()
    assert (folder / "figures" / "umap.csv").exists()  # the page shows that map among all


@pytest.mark.slow
def test_which_layer_is_mapped(
    make_results: Callable[..., Path], make_store: Callable[..., Path]
) -> None:
    folder = make_results(class_names=list("ABC"), layers=range(3))
    make_store(folder)
    for umap, names in (("none", set()), (0, {"umap_layer_0", "umap"})):
        # the second time over itself
        page = Page(write_report(folder, umap=umap).read_text(encoding="utf-8"))
        assert {f["id"] for f in page.all("figure") if "umap" in (f["id"] or "")} <= names
    with pytest.raises(ProbeError, match="no layer 7 to map: it has 0, 1, 2"):
        write_report(folder, umap=7)


def test_report_needs_neither_torch_nor_transformers(make_results: Callable[..., Path]) -> None:
    folder = str(make_results(class_names=list("AB"), layers=range(2)))
    code = (
        "import sys; from signbridge.report import print_table, write_report; "
        f"write_report({folder!r}); print_table({folder!r}); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_the_page_makes_everything_again_and_lists_no_empty_option(
    make_results: Callable[..., Path],
) -> None:
    folder = make_results()
    summary = json.loads((folder / "summary.json").read_text())
    summary["store"]["commands"] = ["signbridge extract --images 'my images'"]
    summary["store"]["provenance"] |= {"quantized_modules": [], "processor_backend": ""}
    (folder / "summary.json").write_text(json.dumps(summary))
    text = Page(write_report(folder).read_text(encoding="utf-8")).text
    again = text.partition("Make it again")[2].strip().splitlines()
    assert again[:2] == ["signbridge extract --images 'my images'", summary["command"]]
    assert "quantized modules" not in text
    assert "processor backend" not in text


def test_results_show_their_first_figure_in_a_notebook(make_results: Callable[..., Path]) -> None:
    from signbridge.report import load_results as load

    results = load(make_results(class_names=["<b>", "B"], layers=[0, 1]))
    shown = Page(results._repr_html_())  # type: ignore[attr-defined]
    assert f"layer {results.best_layer} reads" in shown.text
    (image,) = shown.all("img")
    assert (image["src"] or "").startswith("data:image/png;base64,")
    assert "highest at layer" in (image["alt"] or "")

"""The page in a real browser: layout, keyboard, print, accessibility, text from data, no request.

``axe/`` holds axe-core 4.14.1 (Deque Systems, MPL 2.0), which checks WCAG 2.2 AA; for tests only.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.results import build_results, build_store

from signbridge.report import write_report
from signbridge.report.figures import umap as umap_figure

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed (Debian's package chromium)", allow_module_level=True)

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</style><b>", "{{ 7 }}")
SAID = {
    "layer": 5, "known": {"bits": 2.9, "ci": [2.7, 3.1]}, "class_entropy": 4.6,
    "text": {"bits": 1.2, "names_class": 0.25, "distinct_answers": 7,
             "known_minus_said": {"bits": 1.7, "ci": [1.4, 2.0]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every figure, of classes and answers with hostile names."""
    folder = tmp_path_factory.mktemp("browser")
    results = build_results(folder / "results", class_names=HOSTILE, full=True, layers=range(4))
    path = results / "summary.json"
    summary = json.loads(path.read_text())
    summary |= {"said": SAID, "warnings": [HOSTILE[0]]}
    fingerprint = build_store(folder / "store.h5", results, answers=HOSTILE)
    summary["store"] |= {"path": str(folder / "store.h5"), "fingerprint": fingerprint}
    path.write_text(json.dumps(summary))
    (results / "answers.csv").write_text(
        f'class_name,answer,count,share,names_class\n"{{{{ 7 }}}}",{HOSTILE[0]},3,0.75,false\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signbridge.report.html.warm_up", lambda: None)
        patch.setattr(umap_figure, "embed", lambda vectors, seed, start: (np.asarray(
            vectors, dtype=float)[:, :2], "UMAP"))  # fmt: skip
        return write_report(results, umap="all")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.on("request", lambda request: (
        None if request.url.startswith(("file:", "data:")) else page.complaints.append(request.url)
    ))  # fmt: skip
    page.goto(report.as_uri())
    page.wait_for_selector(".first canvas")
    yield page
    assert page.complaints == []  # errors, refusals of the policy, dialogs, requests
    page.close()


def _see_all(page: Any) -> None:
    for figure in page.query_selector_all("details[open] .chart"):
        figure.scroll_into_view_if_needed()
        page.wait_for_function("box => box.querySelector('canvas')", arg=figure)
    page.evaluate("scrollTo(0, 0)")


def test_it_fits_phone_tablet_and_screen(page: Any) -> None:
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        _see_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.query_selector(".first").bounding_box()
    assert first["y"] + first["height"] <= 900
    boxes = page.evaluate(
        "[...document.querySelectorAll('h1, .question, .verdicts div, .tiles li, .first figure')]"
        ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])"
    )
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] - 0.5 or b[1] >= a[3] - 0.5
            assert apart, (a, b)


def test_values_by_keyboard(page: Any) -> None:
    page.focus(".first .chart")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    tip = page.wait_for_selector(".first .tip")
    assert tip.inner_text().startswith("layer 1")
    assert "knows: layers: " in tip.inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector(".first .tip", state="hidden")
    summary = page.query_selector("#about-protocol summary")
    summary.focus()
    assert not page.is_visible("#about-protocol dl")
    page.keyboard.press("Enter")
    assert page.is_visible("#about-protocol dl")


def test_images_are_chosen_in_one_click_and_by_keyboard(page: Any) -> None:
    box = page.locator("#about-images")
    box.scroll_into_view_if_needed()
    box.locator(".card").first.wait_for()
    everything = box.locator("[role=status]").inner_text()
    chip = box.locator("[data-kind='0']")
    count = int(chip.locator("small").inner_text())
    chip.focus()
    page.keyboard.press("Enter")
    assert chip.get_attribute("aria-pressed") == "true"
    assert box.locator("[role=status]").inner_text() == f"{min(count, 20)} of {count} shown"
    assert box.locator("[role=status]").inner_text() != everything
    marks = box.locator(".card [role=img]").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert marks == ["right", "wrong"] * (len(marks) // 2)  # known and not said
    box.locator("select[name=class]").select_option("0")
    names = box.locator(".card li:first-child strong").all_inner_texts()
    assert set(names) == {HOSTILE[0]}
    sure = "all => all.map(e => parseInt(e.innerText.split(' ').at(-1)))"
    down = box.locator(".card li:nth-child(2) strong").evaluate_all(sure)
    box.locator("select[name=order]").select_option("up")
    up = box.locator(".card li:nth-child(2) strong").evaluate_all(sure)
    assert (down, up) == (sorted(down, reverse=True), sorted(up))
    box.locator("[data-kind='']").click()
    box.locator("select[name=class]").select_option("")
    box.locator(".more").click()
    assert page.evaluate("document.activeElement.matches('.card:nth-child(21)')")


@pytest.mark.slow
def test_the_map_moves_from_layer_to_layer(page: Any) -> None:
    box = page.locator("#umap_layers")
    box.scroll_into_view_if_needed()
    box.locator("canvas").wait_for()
    slider = box.locator("input[type=range]")

    def seen() -> bytes:
        page.wait_for_timeout(700)  # the points move for half a second
        return bytes(box.locator("canvas").screenshot())

    looks = [seen()]
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "layer 0"
    looks.append(seen())
    for number, choice in ((0, "picture"), (1, "class")):
        box.locator("select").nth(number).select_option(choice)
        looks.append(seen())
    assert len(set(looks)) == 4
    box.locator(".chart").focus()
    page.keyboard.press("ArrowRight")
    assert "read as" in box.locator(".tip").inner_text()
    page.keyboard.press("Escape")


def test_a_slider_goes_through_the_layers(page: Any) -> None:
    _see_all(page)
    slider = page.query_selector("#confusion input[type=range]")
    before = slider.get_attribute("aria-valuetext")
    slider.focus()
    page.keyboard.press("ArrowLeft" if before == "layer 3" else "ArrowRight")
    after = slider.get_attribute("aria-valuetext")
    assert after != before
    assert page.inner_text("#confusion output") == after
    page.focus("#confusion .chart")
    page.keyboard.press("ArrowRight")
    assert "read as" in page.wait_for_selector("#confusion .tip").inner_text()


def test_text_from_data_stays_text(page: Any, report: Path) -> None:
    for details in page.query_selector_all("details:not([open]) summary"):
        details.click()
    _see_all(page)
    assert page.query_selector_all("b, i, iframe, img[src]:not([src^='data:'])") == []
    text = page.inner_text("body")
    for hostile in HOSTILE:
        assert hostile in text


@pytest.mark.slow
def test_accessible_as_wcag_asks(page: Any) -> None:
    for details in page.query_selector_all("details:not([open]) summary"):
        details.click()
    page.evaluate((Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run({runOnly: tags})", tags)
    assert len(found["passes"]) > 20
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found["violations"]] == []


def test_few_words_and_few_pages(page: Any) -> None:
    # Specialist sections are closed; what stands on the cards of images is data.
    cards = sum(len(card.inner_text().split()) for card in page.query_selector_all(".cards"))
    assert len(page.inner_text("body").split()) - cards <= 900
    content = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", content)) <= 6

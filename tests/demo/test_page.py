"""The real page in a real browser."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="Gradio is not installed (the extra 'demo')")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed (Debian's package chromium)", allow_module_level=True)

WAIT = 60_000  # milliseconds; a loaded machine is slow


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*flags, "--use-fake-ui-for-media-stream"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    """One for all pages, so that the browser keeps Gradio's scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def page(context, address):
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.outside = []
    page.on(
        "request",
        lambda request: (
            page.outside.append(request.url)
            if not request.url.startswith(
                (address, "data:", "blob:", address.replace("http", "ws"))
            )
            else None
        ),
    )
    page.goto(address)
    page.wait_for_selector("#upload input[type=file]", state="attached")
    yield page
    page.close()


def line_holds(page, text):
    page.wait_for_function(
        "text => document.querySelector('#line')?.innerText.includes(text)", arg=text
    )
    return page.inner_text("#line")


def upload(page, name, data):
    page.set_input_files(
        "#upload input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data}
    )


def panel(page, name):
    return page.get_attribute(f"#{name} svg", "aria-label")


def png(image, **options):
    data = io.BytesIO()
    image.save(data, "PNG", **options)
    return data.getvalue()


def test_an_upload_shows_the_answer_and_the_panels(page, reader, examples):
    upload(page, "b.png", examples[1].read_bytes())
    text = line_holds(page, "Said:")
    wanted = reader.read(Image.open(examples[1]).convert("RGB"))
    assert wanted.answer in text
    assert f"layer {reader.layers[reader.best]} reads" in text
    for name in ("known", "likeliest", "heatmap"):
        svg = page.wait_for_selector(f"#{name} svg[role=img]")
        assert "%" in svg.get_attribute("aria-label")
    assert "stand-in of 1.9 million parameters" in page.content()
    assert page.outside == []


def test_a_picture_can_be_pasted(page, reader, examples):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async base64 => {
            const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
            const blob = new Blob([bytes], {type: "image/png"});
            await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
        }""",
        base64.b64encode(examples[3].read_bytes()).decode(),
    )
    page.locator("#upload").get_by_label("Paste from clipboard").click()
    wanted = reader.read(Image.open(examples[3]).convert("RGB"))
    assert wanted.answer in line_holds(page, "Said:")
    top = wanted.probability[reader.best]
    line_holds(page, f"reads {reader.class_names[top.argmax()]} at {100 * top.max():.0f}")


def test_another_layer_can_be_looked_at(page, reader, examples):
    upload(page, "c.png", examples[2].read_bytes())
    line_holds(page, "layer 5 reads")
    page.wait_for_selector("#likeliest svg")
    before = panel(page, "likeliest")
    page.click("#layer input")
    page.get_by_role("option", name="1", exact=True).click()
    line_holds(page, "layer 1 reads")
    page.wait_for_function(
        "before => document.querySelector('#likeliest svg').ariaLabel !== before", arg=before
    )


GREY = np.linspace(0, 65535, 64 * 64).reshape(64, 64)


def animated():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("broken.png", b"\x89PNG\r\n\x1a\n and no more", "This file is"),
        ("text.png", b"no picture at all", "is not a"),
        ("empty.png", b"", "is empty"),
        ("huge.png", png(Image.new("1", (10_000, 9_000))), "more than the limit"),
        ("moving.gif", animated(), "is animated"),
    ],
)
def test_a_bad_file_gets_a_sentence(page, name, data, sentence):
    upload(page, name, data)
    text = line_holds(page, sentence)
    assert "choose another picture" in text
    assert "Traceback" not in page.content()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("palette.png", png(Image.new("P", (60, 40), 3))),
        ("wide.png", png(Image.fromarray(GREY.astype(np.uint16)))),
        ("clear.png", png(Image.new("RGBA", (50, 50), (10, 20, 30, 0)))),
        ("dot.png", png(Image.new("RGB", (1, 1)))),
    ],
)
def test_an_odd_picture_is_read(page, name, data):
    upload(page, name, data)
    line_holds(page, "Said:")


@pytest.mark.slow
def test_after_a_click_storm_the_page_speaks_of_the_picture_that_it_shows(page, reader, examples):
    """Gradio does not promise that the last click's picture arrives last; ours must match it."""
    told = {}
    for path in examples:
        reading = reader.read(Image.open(path).convert("RGB"))
        top = reading.probability[reader.best]
        told[path.name] = f"reads {reader.class_names[top.argmax()]} at {100 * top.max():.0f}"
    thumbnails = page.locator(".gallery-item")
    assert thumbnails.count() == len(examples)
    for turn in range(20):
        thumbnails.nth(turn % len(examples)).click(no_wait_after=True)
    page.wait_for_timeout(3000)
    page.wait_for_function(
        """told => {
            const shown = document.querySelector('#upload img')?.src.split('/').pop();
            return document.querySelector('#line')?.innerText.includes(told[shown]);
        }""",
        arg=told,
    )
    page.wait_for_selector("#heatmap svg")


def test_the_webcam_takes_a_picture_that_is_not_mirrored(page):
    page.get_by_role("tab", name="Webcam").click()
    page.locator("#webcam button:visible").first.click()  # asks for the camera
    page.wait_for_selector("#webcam video")
    style = page.eval_on_selector("#webcam video", "video => getComputedStyle(video).transform")
    assert style in ("none", "matrix(1, 0, 0, 1, 0, 0)")
    page.wait_for_function(
        "() => { const v = document.querySelector('#webcam video'); return v && v.readyState > 2 }"
    )
    page.locator("#webcam .button-wrap button:visible").first.click()
    line_holds(page, "Said:")


def test_on_a_dark_phone_the_result_is_seen_at_once(browser, address, examples):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(address)
    page.wait_for_selector("#upload input[type=file]", state="attached", timeout=WAIT)
    button = page.get_by_label(f"Example: {examples[0].stem}", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#heatmap svg", timeout=WAIT)
    page.wait_for_function(
        "() => { const y = document.querySelector('#line').getBoundingClientRect().top;"
        " return y >= -5 && y < 200 }"
    )
    colour = "e => getComputedStyle(e).fill.match(/[0-9]+/g).map(Number)"
    for name in ("known", "likeliest"):
        text = page.locator(f"#{name} svg text").first.evaluate(colour)
        assert min(text[:3]) > 180  # light on dark
    assert page.locator("#nearest img").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()

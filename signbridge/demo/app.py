"""The page: two tabs, the answer, three panels. Everything that can fail says so in the page."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from signbridge.demo.access import Names
from signbridge.demo.guard import Guard, WrongQuestion
from signbridge.demo.panels import (
    known_and_said,
    layers_by_classes,
    likeliest_classes,
    nearest_images,
)
from signbridge.demo.reading import Reader, Reading, said_and_read
from signbridge.demo.uploads import own_upload
from signbridge.images.decode import BadImageError, decode, read_image_bytes
from signbridge.model.description import TINY

MAX_UPLOAD = "20mb"
MAX_WAITING = 16
STYLE = """
.gradio-container {max-width: 1200px !important; margin: 0 auto}
#line {font-size: 1.1rem; line-height: 1.5}
#line p {margin: 0 0 .5rem}
.trouble {color: #b3261e}
.dark .trouble {color: #ffb4ab}
.gallery-item img, .nearest img {image-rendering: pixelated}
.gallery-item {position: relative; padding-bottom: 1.3rem !important}
.gallery-item::after {
  content: attr(data-name); position: absolute; inset: auto 0 .1rem 0; text-align: center;
  font-size: .85rem;
}
#layer {--block-info-text-color: var(--body-text-color)}
#upload img, #webcam img {width: 100%; height: 100%; object-fit: contain}
.panel svg {display: block; width: 100%; max-width: 32rem; height: auto}
.panel svg text {font-family: system-ui, sans-serif !important}
.panel h2 {margin: 1rem 0 .3rem; font-size: 1rem; font-weight: 650}
.nearest {display: flex; flex-wrap: wrap; gap: .6rem; margin: 0; padding: 0; list-style: none}
.nearest img {width: 64px; height: 64px; object-fit: contain}
.nearest span {display: block; text-align: center}
button[role="tab"].selected {color: #1d4ed8 !important}
.dark button[role="tab"].selected {color: #93c5fd !important}
footer {display: none !important}
"""
# Gradio gives its example buttons no names, and on a phone the result stands far below them.
SCRIPT = """
() => {
  const names = NAMES;
  const name = () => document.querySelectorAll(".gallery-item").forEach((button, k) => {
    if (button.dataset.name !== names[k]) {
      button.dataset.name = names[k];
      button.setAttribute("aria-label", `Example: ${names[k]}`);
    }
  });
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  name();
}
"""
TO_THE_RESULT = """
(picture) => {
  if (picture && innerWidth < 768) document.getElementById("line").scrollIntoView({block: "start"});
}
"""
INTRO = """# SignBridge
What a vision-language model **says** about a hand, and what linear probes **read** in its layers.
A probe reads one of its classes from any picture, whatever that shows.
"""
STAND_IN = """The model here is the bundled stand-in of 1.9 million parameters, which sees a
picture as 28 x 28 grey pixels. It was trained to answer in one word such as “fist”, never with a
letter, and to hold more in its layers than it says: it shows what SignBridge does, and nothing
about other models.
"""
NOT_UPLOADED = "This picture was not uploaded here, or is here no longer: upload it again."
EMPTY = "Press an example, or give a picture of one hand: the answer and the layers appear here."

log = logging.getLogger(__name__)


def build_page(
    reader: Reader, examples: Sequence[Path], uploads: Path, label: str = "Examples"
) -> gr.Blocks:
    """The page over a loaded model.

    Args:
        reader: model and probes.
        examples: picture files to offer.
        uploads: where Gradio puts what is uploaded; no other file is opened.
        label: what the examples are called.
    """

    def read(entry: dict[str, Any] | None) -> tuple[Any, ...]:
        if entry is None:
            return None, EMPTY, "", "", "", ""
        path = own_upload(entry.get("path"), uploads)
        if path is None:
            return None, _trouble(NOT_UPLOADED), "", "", "", ""
        try:
            picture = decode(read_image_bytes(path))
            reading = reader.read(picture)
        except BadImageError as error:
            return None, _trouble(f"This file {error}: choose another picture."), "", "", "", ""
        except Exception:
            # The page tells its reader what to do; the terminal tells its owner what happened.
            log.exception("a picture could not be read")
            text = "The model could not read this picture: try another; the terminal says why."
            return None, _trouble(text), "", "", "", ""
        # The layer chosen before stays chosen only as long as nobody looks for another picture.
        words, likeliest = of_layer(reading, reading.layers[reader.best])
        return (
            reading,
            words,
            known_and_said(reading),
            nearest_images(reading),
            likeliest,
            layers_by_classes(reading),
        )

    def of_layer(reading: Reading | None, layer: int) -> tuple[Any, ...]:
        if reading is None:
            return EMPTY, ""
        slot = reading.layers.index(layer)
        return said_and_read(reading, slot), likeliest_classes(reading, slot)

    layers = list(reader.layers)
    page: gr.Blocks
    with gr.Blocks(title="SignBridge", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(INTRO + (STAND_IN if reader.description.kind == TINY else ""))
        kept = gr.State(None, time_to_live=3600, delete_callback=None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                with gr.Tab("Upload"):
                    upload = gr.Image(
                        type="filepath",
                        sources=["upload", "clipboard"],
                        label="A picture of one hand",
                        height=300,
                        buttons=[],
                        elem_id="upload",
                    )
                    gr.Examples(
                        [[str(path)] for path in examples],
                        upload,
                        label=label,
                        examples_per_page=24,
                        cache_examples=False,
                    )
                with gr.Tab("Webcam"):
                    # A mirrored hand is another hand: left and right must stay what they are.
                    webcam = gr.Image(
                        type="filepath",
                        sources=["webcam"],
                        label="Hold one hand into the picture and take it",
                        height=300,
                        webcam_options=gr.WebcamOptions(mirror=False),
                        buttons=[],
                        elem_id="webcam",
                    )
            with gr.Column(scale=3, min_width=300):
                line = gr.HTML(EMPTY, elem_id="line", elem_classes="panel")
                known, nearest = (
                    gr.HTML(elem_id=name, elem_classes="panel") for name in ("known", "nearest")
                )
                layer = gr.Dropdown(
                    layers,
                    value=layers[reader.best],
                    label="Layer",
                    info=f"Layer {layers[reader.best]} read best when the probes were trained.",
                    elem_id="layer",
                    filterable=False,
                )
                likeliest, heatmap = (
                    gr.HTML(elem_id=name, elem_classes="panel") for name in ("likeliest", "heatmap")
                )
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "full"}
        for source in (upload, webcam):
            source.change(
                read,
                source,
                [kept, line, known, nearest, likeliest, heatmap],
                show_progress_on=line,
                concurrency_limit=1,
                concurrency_id="model",
                trigger_mode="always_last",
                # The file as it was sent: we judge it, in our own words.
                preprocess=False,
                **private,
            ).then(lambda: layers[reader.best], None, layer, **private)
            source.change(None, source, None, js=TO_THE_RESULT, **private)
        layer.input(
            of_layer,
            [kept, layer],
            [line, likeliest],
            trigger_mode="always_last",
            **private,
        )
        names = json.dumps([path.stem for path in examples])
        page.load(None, None, None, js=SCRIPT.replace("NAMES", names), api_visibility="private")
    page.queue(max_size=MAX_WAITING, api_open=False)
    return page


def question(page: gr.Blocks, uploads: Path, asked: Any) -> dict[str, Any]:
    """Return what Gradio is asked, as far as it is a question that the page itself asks.

    Args:
        page: from :func:`build_page`.
        uploads: as there.
        asked: the JSON of a request.

    Raises:
        WrongQuestion: it is no such question, or is about a file that was not uploaded.
    """
    asked = asked if isinstance(asked, dict) else {}
    number, session, values = (asked.get(key) for key in ("fn_index", "session_hash", "data"))
    event = page.fns.get(number) if type(number) is int else None
    if (
        event is None
        or event.fn is None
        or not isinstance(session, str)
        or not isinstance(values, list)
    ):
        raise WrongQuestion("This is no question of the page.")
    if len(values) != len(event.inputs):
        raise WrongQuestion(f"This question has {len(values)} values, not {len(event.inputs)}.")
    understood = [
        _value(component, value, uploads)
        for component, value in zip(event.inputs, values, strict=True)
    ]
    trigger = asked.get("trigger_id")
    return {
        "session_hash": session,
        "fn_index": number,
        "data": understood,
        "trigger_id": trigger if type(trigger) is int else None,
    }


def _value(component: Any, value: Any, uploads: Path) -> Any:
    """What a visitor may send for a component."""
    if isinstance(component, gr.State):
        return None  # it never leaves the server
    if isinstance(component, gr.Image):
        if value is None:
            return None
        path = own_upload(value.get("path") if isinstance(value, dict) else None, uploads)
        if path is None:
            raise WrongQuestion(NOT_UPLOADED)
        return {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    if isinstance(component, gr.Dropdown):
        choices = [choice for _, choice in component.choices]
    else:
        choices = list(range(len(component.samples)))  # the examples, by number
    if type(value) is not int or value not in choices:
        raise WrongQuestion("The page does not offer this choice.")
    return value


def _trouble(text: str) -> str:
    return f'<span class="trouble" role="alert">{text}</span>'


def serve(
    page: gr.Blocks,
    uploads: Path,
    *,
    host: str,
    port: int,
    auth: tuple[str, str] | None = None,
    share: bool = False,
) -> str:
    """Start to serve the page, in the background.

    Args:
        page: from :func:`build_page`.
        uploads: as there.
        host: address to listen on.
        port: port; 0 takes a free one.
        auth: name and password, or None.
        share: whether Gradio makes a public link.

    Returns:
        The local address.

    Raises:
        OSError: the port cannot be had.
    """
    names = Names(host)
    names.add(os.environ.get("GRADIO_ROOT_PATH"))  # Gradio's own word for the address of a proxy
    guard = Middleware(Guard, names=names, uploads=uploads, check=partial(question, page, uploads))
    sans = ["system-ui", "sans-serif"]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port or _free_port(host),
        auth=auth,
        share=share,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        allowed_paths=[],
        app_kwargs={"middleware": [guard]},
        theme=gr.themes.Default(
            primary_hue="blue", font=sans, font_mono=["ui-monospace", "monospace"]
        ),
        css=STYLE,
    )
    names.add(page.share_url)
    return str(address)


def _free_port(host: str) -> int:
    """Gradio itself tries a hundred ports in a row where none is given."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])

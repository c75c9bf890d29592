"""The page: two tabs, the answer, three panels. Everything that can fail says so in the page."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from signbridge.demo.panels import confidence_by_layer, layers_by_classes, likeliest_classes
from signbridge.demo.reading import Reader, Reading, said_and_known
from signbridge.images.decode import BadImageError, decode, read_image_bytes

MAX_UPLOAD = "20mb"
MAX_WAITING = 16
STYLE = """
.gradio-container {max-width: 1200px !important; margin: 0 auto}
#line {font-size: 1.15rem; line-height: 1.6}
#line .trouble {color: #b3261e}
.gallery-item img {image-rendering: pixelated}
#upload img, #webcam img {width: 100%; height: 100%; object-fit: contain}
footer {display: none !important}
"""
INTRO = """# SignBridge
What a vision-language model **says** about a hand, and what linear probes **read** in its layers.
"""
EMPTY = "Give it a picture of one hand: the answer and the layers appear here."

log = logging.getLogger(__name__)


def _path(payload: Any) -> str | None:
    """The uploaded file in the page's own cache, as it was sent: we judge it, in our own words."""
    return None if payload is None else payload.path


def build_page(reader: Reader, examples: Sequence[Path]) -> gr.Blocks:
    """The page over a loaded model.

    Args:
        reader: model and probes.
        examples: picture files to offer.
    """

    def read(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, EMPTY, None, None, None
        try:
            picture = decode(read_image_bytes(Path(path)))
            reading = reader.read(picture)
        except BadImageError as error:
            return None, _trouble(f"This file {error}: choose another picture."), None, None, None
        except Exception:
            # The page tells its reader what to do; the terminal tells its owner what happened.
            log.exception("a picture could not be read")
            text = "The model could not read this picture: try another; the terminal says why."
            return None, _trouble(text), None, None, None
        # The layer chosen before stays chosen only as long as nobody looks for another picture.
        words, likeliest = of_layer(reading, reading.layers[reader.best])
        return reading, words, confidence_by_layer(reading), likeliest, layers_by_classes(reading)

    def of_layer(reading: Reading | None, layer: int) -> tuple[Any, ...]:
        if reading is None:
            return EMPTY, None
        slot = reading.layers.index(layer)
        return said_and_known(reading, slot), likeliest_classes(reading, slot)

    layers = list(reader.layers)
    page: gr.Blocks
    with gr.Blocks(title="SignBridge", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(INTRO)
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
                        label="Examples (no model or probe here was trained on them)",
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
                line = gr.HTML(EMPTY, elem_id="line")
                layer = gr.Dropdown(
                    layers,
                    value=layers[reader.best],
                    label="Layer",
                    info=f"Layer {layers[reader.best]} read best when the probes were trained.",
                    elem_id="layer",
                    filterable=False,
                )
                confidence, likeliest, heatmap = (
                    gr.Plot(show_label=False, format="png", elem_id=name)
                    for name in ("confidence", "likeliest", "heatmap")
                )
        for source in (upload, webcam):
            source.preprocess = _path  # type: ignore[method-assign]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        for source in (upload, webcam):
            source.change(
                read,
                source,
                [kept, line, confidence, likeliest, heatmap],
                concurrency_limit=1,
                concurrency_id="model",
                trigger_mode="always_last",
                **private,
            ).then(lambda: layers[reader.best], None, layer, **private)
        layer.input(
            of_layer,
            [kept, layer],
            [line, likeliest],
            trigger_mode="always_last",
            **private,
        )
    page.queue(max_size=MAX_WAITING)
    return page


def _trouble(text: str) -> str:
    return f'<span class="trouble" role="alert">{text}</span>'


class OwnContentOnly:
    """ASGI middleware: the page may load nothing from anywhere else, so it cannot tell anyone."""

    POLICY = (
        b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' ws: wss:"
    )

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Add the header to every response."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", self.POLICY),
                ]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def serve(
    page: gr.Blocks,
    *,
    host: str,
    port: int,
    auth: tuple[str, str] | None = None,
    share: bool = False,
) -> str:
    """Start to serve the page, in the background.

    Args:
        page: from :func:`build_page`.
        host: address to listen on.
        port: port; 0 takes a free one.
        auth: name and password, or None.
        share: whether Gradio makes a public link.

    Returns:
        The local address.

    Raises:
        OSError: the port cannot be had.
    """
    from starlette.middleware import Middleware

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
        app_kwargs={"middleware": [Middleware(OwnContentOnly)]},
        theme=gr.themes.Default(font=sans, font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    return str(address)


def _free_port(host: str) -> int:
    """Gradio itself tries a hundred ports in a row where none is given."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])

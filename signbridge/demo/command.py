"""The command: check what was asked for, load model and probes once, and serve the page.

Nothing heavy is imported until it runs, as for all of :mod:`signbridge.cli.commands`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from signbridge.demo.access import check_access
from signbridge.errors import ModelError, SignBridgeError
from signbridge.runtime.terminal import as_text

BUNDLED_PROBES = Path(__file__).resolve().parents[1] / "assets" / "probes"
"""Of the bundled model; made without the demo's examples and their near-duplicates."""


def demo(
    model: str = "tiny",
    probes: str | None = None,
    port: int = 7860,
    host: str = "127.0.0.1",
    auth: str | None = None,
    share: bool = False,
) -> None:
    """Show in the browser what the model says about a picture and what probes read in its layers.

    It serves this machine alone unless told otherwise, and stops at Ctrl-C.

    Args:
        model: 'tiny' (bundled), a hub id or a local folder.
        probes: the results folder of a run with this model; the bundled probes by default.
        port: where to listen; 0 takes a free port.
        host: address to listen on; one that other machines can reach needs auth.
        auth: NAME:PASSWORD that a visitor has to give.
        share: make a public link through Gradio's servers; needs auth.
    """
    account = check_access(host, auth, share=share)
    if not 0 <= port < 65536:
        raise SignBridgeError(
            f"port is {port}: give a number from 1 to 65535, or 0 for a free one."
        )
    if probes is None and model != "tiny":
        raise ModelError(
            f"The bundled probes read the bundled model only: give --probes the results folder of "
            f"a run with {model}."
        )
    if importlib.util.find_spec("gradio") is None:
        raise SignBridgeError("the demo needs Gradio: run pip install 'signbridge[demo]'.")
    from rich.console import Console

    from signbridge.demo.app import build_page, serve
    from signbridge.demo.examples import examples_label, training_rows, write_examples
    from signbridge.demo.reading import Reader
    from signbridge.demo.uploads import UPLOADS, demo_folder
    from signbridge.images import open_images

    console = Console(stderr=True)
    console.print("loading the model and its probes ...")
    reader = Reader(model, probes or BUNDLED_PROBES)
    bundled = probes is None or Path(probes).resolve() == BUNDLED_PROBES
    if bundled:
        sample = open_images("sample")
        reader.compare_with(sample, training_rows(sample))
    else:
        reader.compare_with_results(str(probes))
    with demo_folder() as folder:
        examples = write_examples(folder, reader.class_names)
        label = examples_label(None if bundled else probes, reader.class_names)
        page = build_page(reader, examples, folder / UPLOADS, label)
        try:
            address = serve(page, folder / UPLOADS, host=host, port=port, auth=account, share=share)
        except OSError as error:
            raise SignBridgeError(
                f"port {port} on {host} cannot be had, perhaps another demo runs there: give "
                "another --port, or 0 for any that is free."
            ) from error
        console.print(as_text(f"The demo runs at {address} (Ctrl-C ends it)."))
        page.block_thread()

import numpy as np
import pytest
import torch

from signbridge.extraction.extract import extract_activations
from signbridge.images import open_images
from signbridge.model.description import describe_model
from signbridge.probes import fit_logistic
from signbridge.results.features import Feature
from signbridge.results.probes import Probe, save_probes

ROWS_PER_CLASS = 4


@pytest.fixture(scope="session")
def store_path(tmp_path_factory):
    """A store of a part of the sample, for probes that know what they see."""
    images = open_images("sample", per_class=ROWS_PER_CLASS, groups="none")
    path = tmp_path_factory.mktemp("demo") / "part.h5"
    return extract_activations(
        images, describe_model("tiny"), path, num_workers=0, max_new_tokens=3, forced_choice=True
    )


@pytest.fixture(scope="session")
def probes_folder(store_path, tmp_path_factory):
    from signbridge.store import open_store

    folder = tmp_path_factory.mktemp("probes")
    with open_store(store_path) as store:
        labels = np.asarray(store.labels)
        probes = []
        for layer in store.layers:
            X = store.layer(layer).astype(np.float64)
            mean, deviation = X.mean(0), X.std(0)
            deviation[deviation == 0] = 1
            fit = fit_logistic(((X - mean) / deviation)[None], labels, 1.0)
            width = X.shape[1]
            weight = np.asarray(fit.coef).reshape(-1, width)
            bias = np.asarray(fit.intercept).reshape(-1)
            probes.append(Probe(Feature("resid_post", layer), weight, bias, mean, deviation, 1.0))
        words = {"store": {"provenance": dict(store.provenance)}, "best_layer": 5}
        save_probes(folder, probes, store.class_names, words)
    return folder


@pytest.fixture(scope="session")
def reader(probes_folder):
    from signbridge.demo.reading import Reader

    found = Reader("tiny", probes_folder)
    images = open_images("sample", per_class=ROWS_PER_CLASS, groups="none")
    found.compare_with(images, range(0, len(images), ROWS_PER_CLASS))
    return found


@pytest.fixture(scope="session")
def demo_page(reader):
    """The page, served: its address, its own folder, its examples, and Gradio's object."""
    pytest.importorskip("gradio", reason="Gradio is not installed (the extra 'demo')")
    from signbridge.demo.app import build_page, serve
    from signbridge.demo.examples import write_examples
    from signbridge.demo.uploads import UPLOADS, demo_folder

    with demo_folder() as folder:
        examples = write_examples(folder, reader.class_names)
        uploads = folder / UPLOADS
        page = build_page(reader, examples, uploads)
        yield serve(page, uploads, host="127.0.0.1", port=0), folder, examples, page
        page.close()


@pytest.fixture(scope="session")
def address(demo_page):
    return demo_page[0]


@pytest.fixture(scope="session")
def examples(demo_page):
    return demo_page[2]


def pytest_configure():
    torch.set_num_threads(1)

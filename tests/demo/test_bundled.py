"""The bundled model with the bundled probes, on the example pictures that neither has seen."""

import numpy as np
import pytest
from PIL import Image

from signbridge.demo.command import BUNDLED_PROBES
from signbridge.demo.examples import CLASSES, write_examples
from signbridge.demo.reading import Reader, said_and_read
from signbridge.probes.controls.answers import names_class


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    reader = Reader("tiny", BUNDLED_PROBES)
    paths = write_examples(tmp_path_factory.mktemp("examples"), reader.class_names)
    return {path.stem: reader.read(Image.open(path).convert("RGB")) for path in paths}


@pytest.mark.slow
def test_the_layers_know_what_the_answer_does_not_say(readings):
    assert tuple(readings) == CLASSES
    read = [r.class_names[r.probability[r.best].argmax()] for r in readings.values()]
    right = sum(name == truth for name, truth in zip(read, readings, strict=True))
    assert right >= 8  # of 12; held out, the probes are right for some 85 %
    assert not any(names_class(r.answer, truth) for truth, r in readings.items())
    assert all(r.answer for r in readings.values())


def test_the_bundled_probes_tell_how_often_they_are_right(readings):
    reading = next(iter(readings.values()))
    assert all(score.n_test == 284 for score in reading.held_out)  # the sample without examples
    accuracy = [score.value for score in reading.held_out]
    assert reading.best == np.argmax(accuracy)
    read = [r.class_names[r.probability[r.best].argmax()] for r in readings.values()]
    right = np.mean([name == truth for name, truth in zip(read, readings, strict=True)])
    assert abs(right - accuracy[reading.best]) < 0.25  # 12 images
    line = said_and_read(reading, reading.best)
    assert "It was right on 81&nbsp;% of 284 held-out images" in line

"""Image by image: which are shown, what is said of each, and pictures that are none."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from signbridge.report import images
from signbridge.report.images import browser, pictures, squares

CLASSES = ("fist", "hand", "<img src=x onerror=alert(1)>")


def jpeg(width: int = 8, height: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def resized(width: int, height: int) -> bytes:
    """A JPEG whose head promises more pixels than it holds."""
    content = bytearray(jpeg())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(content)


class Store:
    """What is asked of a store."""

    def __init__(self, thumbnails: list[str] | None = None, **has: Any) -> None:
        self.thumbnails = thumbnails
        self.responses = has.get("responses")
        self.class_logprob = has.get("class_logprob")
        self.provenance: dict[str, Any] = {}
        self.baselines = ("pixels",)

    def __contains__(self, name: str) -> bool:
        return name == "thumbnail" and self.thumbnails is not None

    def texts(self, _: str, rows: Any) -> list[str]:
        assert self.thumbnails is not None
        return [self.thumbnails[row] for row in rows]

    def feature(self, _: str, rows: Any) -> np.ndarray:
        return np.arange(784, dtype=np.uint16).astype(np.uint8)[None].repeat(len(rows), 0)


def inputs_of(label: np.ndarray, read: np.ndarray, store: Store, sure: float = 0.8) -> Any:
    probability = np.full((len(label), len(CLASSES)), (1 - sure) / 2, np.float32)
    probability[np.arange(len(label)), np.maximum(read, 0)] = sure
    probability[read < 0] = np.nan
    predictions = SimpleNamespace(
        label=label,
        group=np.arange(len(label)),
        group_names=None,
        probability=lambda _: probability,
    )
    results = SimpleNamespace(
        predictions=predictions, class_names=CLASSES, best_layer=5, best_feature="resid_post/5",
        protocol=SimpleNamespace(seed=1), provenance={},
    )  # fmt: skip
    return SimpleNamespace(results=results, store=store)


def test_a_picture_that_is_no_small_jpeg_is_left_out() -> None:
    png = io.BytesIO()
    Image.new("L", (8, 8)).save(png, "PNG")
    contents = {
        "good": jpeg(),
        "a bomb": resized(60_000, 60_000),
        "another kind": png.getvalue(),
        "a page": b"<script>alert(1)</script>",
        "cut off": jpeg()[:20],
        "empty": b"",
        "much": jpeg() + b"\0" * 100_000,
    }
    texts = [base64.b64encode(content).decode() for content in contents.values()]
    texts.append('/9j/" onerror="alert(1)')
    found = pictures(Store(texts), range(len(texts)))  # type: ignore[arg-type]
    assert found == {0: f"data:image/jpeg;base64,{texts[0]}"}


def test_a_store_without_thumbnails_gives_its_grey_images() -> None:
    (uri,) = pictures(Store(), [3]).values()  # type: ignore[arg-type]
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(-1), np.arange(784) % 256)


def test_the_middle_square_of_a_picture() -> None:
    texts = [base64.b64encode(content).decode() for content in (jpeg(20, 8), jpeg()[:400])]
    found = squares(Store(texts), [0, 1])  # type: ignore[arg-type]
    assert {row: image.shape for row, image in found.items()} == {0: (8, 8, 3)}


def test_what_is_known_and_said_of_each_image() -> None:
    label = np.array([0, 0, 1, 1, 2, 0])
    read = np.array([0, 1, 1, 0, 2, -1])
    answers = ["a fist", "fist!", "fist", "two hands", "", "fist"]
    logprob = -np.eye(3, dtype=np.float32)[[1, 1, 0, 0, 0, 0]]
    found = browser(inputs_of(label, read, Store(responses=answers, class_logprob=logprob)), [])
    assert found is not None
    assert [(kind.name, kind.count) for kind in found.kinds] == [
        *(("All", 5), ("Known, not said", 2), ("Said, not known", 1)),
        *(("Neither", 1), ("Both", 1)),
    ]
    first = found.spec["images"][0]
    assert first == {
        "row": 0, "label": 0, "read": 0, "sure": 0.8, "answer": 0, "choice": 0, "group": None,
        "kind": 3, "says": True,
    }  # fmt: skip
    assert [one["kind"] for one in found.spec["images"]] == [3, 1, 0, 2, 0]
    assert [one["row"] for one in found.examples] == [2, 4]
    assert found.spec["answers"][4] == "(nothing)"
    assert "<" not in found.json
    assert found.spec["classes"][2] == CLASSES[2]


@pytest.mark.parametrize("stored", [True, False])
def test_without_answers_the_forced_choice_or_the_probe_alone_counts(stored: bool) -> None:
    label, read = np.array([0, 1, 1]), np.array([0, 1, 0])
    logprob = -np.ones((3, 3), np.float32) * [1, 2, 0]  # the third class has no image
    store = Store(class_logprob=logprob if stored else None)
    found = browser(inputs_of(label, read, store), [])
    assert found is not None
    counts = {kind.name: kind.count for kind in found.kinds}
    if stored:
        assert counts == {
            "All": 3, "Known, not said": 1, "Said, not known": 0, "Neither": 1, "Both": 1,
        }  # fmt: skip
        assert "the forced choice picks it" in found.caption
    else:
        assert counts == {"All": 3, "Known": 2, "Not known": 1}
        assert found.examples == ()


def test_of_many_images_each_kind_and_class_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_MOST", 60)
    label = np.repeat([0, 1, 2], [900, 90, 10])
    read = np.where(np.arange(1000) % 10 == 0, (label + 1) % 3, label)
    answers = ["fist" if row in (10, 11, 12) else "" for row in range(1000)]
    inputs = inputs_of(label, read, Store(responses=answers))
    found, again = browser(inputs, []), browser(inputs, [])
    assert found is not None
    assert again is not None
    assert found.rows == again.rows
    assert len(found.rows) == 60
    kinds = np.array([one["kind"] for one in found.spec["images"]])
    assert (kinds == 1).sum() == 1  # read wrongly and said: row 10 alone
    assert (kinds == 3).sum() == 2
    assert (kinds == 2).sum() == 28  # what small kinds leave is shared by the others
    known = [one["label"] for one in found.spec["images"] if one["kind"] == 0]
    assert np.bincount(known).tolist() == [10, 10, 9]
    assert found.caption.startswith("60 of 1,000 images")

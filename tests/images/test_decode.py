from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbridge.images.decode import (
    MAX_PIXELS,
    BadImageError,
    decode,
    grey_pixels,
    read_image_bytes,
    thumbnail,
)
from tests.fixtures.image_files import png


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(7).integers(0, top, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_to_the_letter(kind: str) -> None:
    pixels = noise(9, 13, 3)
    image = decode(encoded(Image.fromarray(pixels), kind))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_webp_lossless_and_jpeg_are_read() -> None:
    pixels = noise(16, 16, 3)
    webp = decode(encoded(Image.fromarray(pixels), "WEBP", lossless=True))
    np.testing.assert_array_equal(np.asarray(webp), pixels)
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    jpeg = np.asarray(decode(encoded(flat, "JPEG", quality=95))).astype(int)
    assert np.abs(jpeg - [200, 100, 50]).max() <= 2  # the codec's own rounding of YCbCr


# EXIF 2.32, tag 0x0112: which side of the scene the stored row 0 and column 0 are.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int) -> None:
    stored = noise(5, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(Image.fromarray(stored), exif=exif))
    np.testing.assert_array_equal(np.asarray(image), UPRIGHT[orientation](stored))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    wide = np.array([[0, 128, 129, 257, 32896, 65406, 65407, 65535]], dtype=">u2")
    image = decode(png(8, 1, 16, 0, b"\x00" + wide.tobytes()))
    expected = np.rint(wide.astype(float) * 255 / 65535)
    np.testing.assert_array_equal(np.asarray(image)[..., 0], expected)


def test_sixteen_bit_colour_is_read() -> None:
    wide = np.array([[[65535, 32896, 0]]], dtype=">u2")
    image = decode(png(1, 1, 16, 2, b"\x00" + wide.tobytes()))
    np.testing.assert_array_equal(np.asarray(image), [[[255, 128, 0]]])


def test_transparency_lies_over_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = [0, 128, 255]  # a hidden black, a half black, a black
    image = np.asarray(decode(encoded(Image.fromarray(rgba))))
    np.testing.assert_array_equal(image[0, :, 0], [255, 127, 0])


def test_palette_with_a_transparent_colour_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    read = np.asarray(decode(encoded(image, transparency=0)))
    np.testing.assert_array_equal(read, [[[255, 255, 255], [40, 50, 60]]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_modes_give_the_colours_that_they_mean(mode: str) -> None:
    black_and_white = Image.fromarray(noise(6, 7, top=2) * 255)
    read = decode(encoded(black_and_white.convert(mode)))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(black_and_white.convert("RGB")))


def test_cmyk_is_read() -> None:
    image = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 255, 255, 0)])
    read = np.asarray(decode(encoded(image, "JPEG", quality=95))).astype(int)
    assert np.abs(read - [255, 0, 0]).max() <= 3  # red, but for the codec's rounding


def test_multi_picture_jpeg_gives_its_first_picture() -> None:
    first, second = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16), "black")
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.asarray(decode(data)).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_animation_is_refused(kind: str) -> None:
    frames = [Image.fromarray(noise(8, 8, 3)), Image.new("RGB", (8, 8), "red")]
    with pytest.raises(BadImageError, match="is animated"):
        decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_refused_unopened(width: int, height: int) -> None:
    with pytest.raises(BadImageError, match=f"more (pixels )?than the limit of {MAX_PIXELS:,}"):
        decode(png(width, height, 8, 0, b"\x00" * 100))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_file_is_damaged(kind: str, kept: float) -> None:
    data = encoded(Image.fromarray(noise(32, 32, 3)), kind)
    with pytest.raises(BadImageError, match=r"is damaged|is not a"):
        decode(data[: int(len(data) * kept)])


@pytest.mark.parametrize("data", [b"label,pixel1\n", b"\x00" * 500, b"%PDF-1.7", b"\x89PNG\r\n"])
def test_other_bytes_are_named_as_no_image(data: bytes) -> None:
    with pytest.raises(BadImageError, match="is not a JPEG, PNG, WebP, BMP, GIF or TIFF image"):
        decode(data)


def test_other_formats_are_refused_though_pillow_reads_them() -> None:
    with pytest.raises(BadImageError, match="is not a JPEG"):
        decode(encoded(Image.new("RGB", (4, 4)), "PPM"))


def test_a_still_gif_is_read_over_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    read = np.asarray(decode(encoded(image, "GIF", transparency=1)))
    np.testing.assert_array_equal(read, [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]])


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_a_sixteen_bit_tiff_is_scaled_not_clipped(order: str) -> None:
    wide = np.array([[0, 257, 32896, 65535]], dtype=order)
    image = Image.frombytes("I;16B" if order == ">u2" else "I;16", (4, 1), wide.tobytes())
    read = np.asarray(decode(encoded(image, "TIFF")))
    np.testing.assert_array_equal(read[..., 0], [[0, 1, 128, 255]])


def test_a_tiff_of_pages_is_refused_and_one_with_a_preview_is_read() -> None:
    full, second = Image.fromarray(noise(8, 8, 3)), Image.new("RGB", (4, 4), "red")
    with pytest.raises(BadImageError, match="has 2 pages"):
        decode(encoded(full, "TIFF", save_all=True, append_images=[second]))
    preview = second.copy()
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # TIFF 6.0: NewSubfileType, reduced resolution
    read = decode(encoded(full, "TIFF", save_all=True, append_images=[preview]))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(full))


def test_a_tiff_is_turned_upright() -> None:
    stored = noise(5, 8, 3)
    turned = decode(encoded(Image.fromarray(stored), "TIFF", tiffinfo={274: 6}))
    np.testing.assert_array_equal(np.asarray(turned), UPRIGHT[6](stored))


def test_any_flipped_byte_gives_an_image_or_a_reason() -> None:
    data = encoded(Image.fromarray(noise(8, 8, 3)), "JPEG")
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            outcomes.add(decode(bytes(damaged)).mode)
        except BadImageError:
            outcomes.add("refused")
    assert outcomes == {"RGB", "refused"}


def test_grey_pixels_are_area_means() -> None:
    grey = noise(56, 84)
    across = np.floor(grey.reshape(56, 28, 3).mean(axis=2) + 0.5)  # Pillow rounds after each axis
    down = np.floor(across.reshape(28, 2, 28).mean(axis=1) + 0.5)
    pixels = grey_pixels(Image.fromarray(grey).convert("RGB"))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, down.reshape(-1))


def test_grey_pixels_of_a_grey_28_image_are_the_image() -> None:
    grey = noise(28, 28)
    row = grey_pixels(decode(encoded(Image.fromarray(grey))))
    np.testing.assert_array_equal(row, grey.reshape(-1))


def test_grey_is_itu_r_601_luma() -> None:
    colour = Image.new("RGB", (50, 40), (200, 100, 50))
    expected = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert set(grey_pixels(colour).tolist()) == {expected}


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadImageError, match=r"cannot be read \(No such file"):
        read_image_bytes(tmp_path / "nowhere.png")
    with pytest.raises(BadImageError, match="is not a regular file"):
        read_image_bytes(tmp_path)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(BadImageError, match="is empty"):
        read_image_bytes(empty)
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(BadImageError, match="cannot be read"):
        read_image_bytes(loop)
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(BadImageError, match="has 1,073,741,824 bytes"):
        read_image_bytes(huge)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read whatever its mode
    with pytest.raises(BadImageError, match=r"cannot be read \(Permission denied\)"):
        read_image_bytes(empty)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImageError, match="is not a regular file"):
        read_image_bytes(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("size", "small"), [((28, 28), (28, 28)), ((640, 480), (128, 96)), ((9000, 3), (128, 1))]
)
def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    text = thumbnail(image)
    assert text == thumbnail(image)
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["JPEG"]) as found:
        assert found.size == small
        middle = np.asarray(found.resize((1, 1)), float), np.asarray(image.resize((1, 1)), float)
    assert np.abs(middle[0] - middle[1]).max() < 12

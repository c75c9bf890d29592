"""Every depth, order and meaning of levels that a PNG, TIFF or BMP can have, from known levels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signbridge.images import open_images
from signbridge.images.decode import NO_VALUE_ABOVE_12_BITS, BadImageError, decode
from tests.fixtures.image_files import bmp32, png_of, tiff

HEIGHT, WIDTH = 5, 13


def levels(bits: int, samples: int) -> np.ndarray:
    """Random levels (height, width, samples) with the darkest and the brightest among them."""
    made = np.random.default_rng(bits + samples).integers(0, 2**bits, (HEIGHT, WIDTH, samples))
    made[0, 0], made[0, 1] = 0, 2**bits - 1
    return made


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colour * alpha + 1 - alpha


def check(data: bytes, light: np.ndarray, tolerance: float = 0.51) -> None:
    """Compare a file with the light (height, width, 1 or 3) that it stores, from 0 to 1."""
    got = np.asarray(decode(data)).astype(float)
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(got - 255 * light).max() <= tolerance


UPPER_BYTE = 1.0  # of 16-bit colour the upper byte is kept
UPPER_BYTES = 3.0  # likewise of its alpha, or of ink and black; a level is lost in each


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("bits", "order"), [(b, o) for b in (1, 2, 4, 8, 12, 16) for o in "<>"])
def test_grey_tiff(bits: int, order: str, photometric: int, deflate: bool) -> None:
    stored = levels(bits, 1)
    data = tiff(stored, bits, photometric, order, deflate=deflate)
    light = stored / (2**bits - 1)
    if (bits, photometric) == (12, 0) or (
        order == ">" and (bits, photometric) in {(12, 1), (16, 0)}
    ):
        with pytest.raises(BadImageError, match="a TIFF of a kind that is not read"):
            decode(data)
    else:
        check(data, light if photometric else 1 - light)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_tiff(bits: int, deflate: bool, planar: bool, order: str) -> None:
    top, how = 2**bits - 1, {"order": order, "deflate": deflate, "planar": planar}
    rgb, cmyk = levels(bits, 3), levels(bits, 4)
    files = [
        (tiff(rgb, bits, 2, **how), rgb / top),
        (tiff(cmyk, bits, 5, **how), (1 - cmyk[..., :3] / top) * (1 - cmyk[..., 3:] / top)),
    ]
    for data, light in files:
        if planar and bits == 16 and not deflate:
            with pytest.raises(BadImageError, match="stores its colours one after the other"):
                decode(data)
        else:
            check(data, light, 0.51 if bits == 8 else UPPER_BYTES)


# TIFF 6.0, ExtraSamples: unspecified data, associated (premultiplied) and unassociated alpha.
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2


def is_read(colours: int, extra: int | None, bits: int, deflate: bool, planar: bool) -> bool:
    """What Pillow reads at all, and reads right."""
    if not planar:
        return colours == 3 or (bits, extra) == (8, UNASSOCIATED)
    if colours == 1:
        return deflate and extra == UNSPECIFIED
    if deflate:
        return extra is not None
    return bits == 8 and extra in (UNASSOCIATED, None)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [UNSPECIFIED, ASSOCIATED, UNASSOCIATED, None])
@pytest.mark.parametrize("colours", [1, 3])
def test_tiff_with_a_further_sample(
    colours: int, extra: int | None, bits: int, deflate: bool, planar: bool, order: str
) -> None:
    top, stored = 2**bits - 1, levels(bits, colours + 1)
    if extra == ASSOCIATED:
        stored[..., :-1] = stored[..., :-1] * stored[..., -1:] // top
    colour, alpha = stored[..., :-1] / top, stored[..., -1:] / top
    light = {UNSPECIFIED: colour, ASSOCIATED: colour + 1 - alpha}.get(
        extra,
        over_white(colour, alpha),  # type: ignore[arg-type]
    )
    tags = {} if extra is None else {338: [extra]}
    photometric = 2 if colours == 3 else 1
    data = tiff(stored, bits, photometric, order, deflate=deflate, planar=planar, tags=tags)
    if is_read(colours, extra, bits, deflate, planar):
        check(data, light, 1.01 if bits == 8 else UPPER_BYTES)
    else:
        with pytest.raises(BadImageError, match=r"not read|unknown raw mode"):
            decode(data)


@pytest.mark.parametrize("deflate", [False, True])
def test_ycbcr_tiff(deflate: bool) -> None:
    stored = levels(8, 3)
    y, blue, red = (stored[..., i].astype(float) for i in range(3))
    # ITU-R BT.601 as in JFIF.
    rgb = [y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128)]
    rgb.append(y + 1.772 * (blue - 128))
    data = tiff(stored, 8, 6, deflate=deflate, tags={530: [1, 1]})
    if deflate:
        check(data, np.stack(rgb, -1).clip(0, 255) / 255, 1.0)
    else:
        with pytest.raises(BadImageError, match="has uncompressed YCbCr colours"):
            decode(data)


@pytest.mark.parametrize("planar", [False, True])
def test_cielab_tiff(planar: bool) -> None:
    # Greys: L* of 100, 0 and 53.585 (CIE 1976) are light of 1, 0 and 0.2159, and that is sRGB 128.
    stored = np.zeros((1, 3, 3), int)
    stored[0, :, 0] = [255, 0, 137]
    data = tiff(stored, 8, 8, planar=planar)
    if planar:
        with pytest.raises(BadImageError, match="stores its colours one after the other"):
            decode(data)
        return
    read = np.asarray(decode(data)).astype(int)
    assert np.abs(read[0] - [[255] * 3, [0] * 3, [128] * 3]).max() <= 2


@pytest.mark.parametrize("values", [65535, 255])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_tiff(bits: int, values: int) -> None:
    """Palettes of 16 bits, and of 8 bits as some programs write against the specification."""
    colours = np.random.default_rng(bits).integers(0, values + 1, (3, 2**bits))
    colours[0, 0] = values
    stored = levels(bits, 1)
    data = tiff(stored, bits, 3, tags={320: colours.ravel().tolist()})
    check(data, colours.T[stored[..., 0]] / values, UPPER_BYTE)


@pytest.mark.parametrize(
    ("bits", "sample_format", "message"),
    [(8, 2, "signed"), (16, 2, "signed"), (32, 1, "32-bit"), (32, 2, "32-bit"), (32, 3, "32-bit")],
)
def test_a_tiff_without_a_known_white_is_refused(
    bits: int, sample_format: int, message: str
) -> None:
    with pytest.raises(BadImageError, match=f"has {message}"):
        decode(tiff(levels(bits, 1), bits, 1, tags={339: [sample_format]}))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_and_its_transparent_level(bits: int) -> None:
    stored = levels(bits, 1)
    level = int(stored[2, 3, 0])
    stored[3, 3] = level ^ 1  # its neighbour in the file, which 8 bits cannot tell from it
    light = stored / (2**bits - 1)
    check(png_of(stored, bits, 0), light)
    clear = png_of(stored, bits, 0, tRNS=struct.pack(">H", level))
    check(clear, np.where(stored == level, 1, light))


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_png_and_its_transparent_colour(bits: int) -> None:
    stored = levels(bits, 3)
    colour = stored[2, 3].copy()
    stored[3, 3], stored[4, 3], stored[4, 4] = colour ^ 1, colour, colour & 255
    light = stored / (2**bits - 1)
    check(png_of(stored, bits, 2), light, UPPER_BYTE)
    clear = png_of(stored, bits, 2, tRNS=struct.pack(">HHH", *colour))
    here = (stored == colour).all(-1, keepdims=True)
    check(clear, np.where(here, 1, light), UPPER_BYTE)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours", [1, 3])
def test_png_with_alpha(colours: int, bits: int) -> None:
    stored, top = levels(bits, colours + 1), 2**bits - 1
    light = over_white(stored[..., :-1] / top, stored[..., -1:] / top)
    colour_type = 4 if colours == 1 else 6
    check(png_of(stored, bits, colour_type), light, 1.0 if bits == 8 else UPPER_BYTES)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_with_alpha(bits: int) -> None:
    rng, stored = np.random.default_rng(bits), levels(bits, 1)
    colours, alpha = rng.integers(0, 256, (2**bits, 3)), rng.integers(0, 256, 2**bits)
    palette, index = colours.astype(np.uint8).tobytes(), stored[..., 0]
    check(png_of(stored, bits, 3, PLTE=palette), colours[index] / 255)
    clear = png_of(stored, bits, 3, PLTE=palette, tRNS=alpha.astype(np.uint8).tobytes())
    check(clear, over_white(colours[index] / 255, alpha[stored] / 255), 1.0)


@pytest.mark.parametrize("alpha", ["varied", "unset", "no mask"])
def test_bmp_with_a_fourth_byte(alpha: str) -> None:
    stored = levels(8, 4)
    if alpha == "unset":
        stored[..., 3] = 0
    colour = stored[..., 2::-1] / 255
    light = over_white(colour, stored[..., 3:] / 255) if alpha == "varied" else colour
    check(bmp32(stored, 0 if alpha == "no mask" else 0xFF000000), light, 1.0)


def test_sixteen_bits_that_hold_twelve_are_noted() -> None:
    twelve = levels(12, 1)
    written: list[tuple[Callable[..., bytes], int, int]] = [
        (tiff, 1, 1),
        (tiff, 1, 0),
        (tiff, 3, 2),
        (png_of, 1, 0),
        (png_of, 3, 2),
    ]
    for write, samples, kind in written:
        stored = levels(12, samples)
        assert NO_VALUE_ABOVE_12_BITS in decode(write(stored, 16, kind)).info
        stored[1, 1] = 4096
        assert NO_VALUE_ABOVE_12_BITS not in decode(write(stored, 16, kind)).info
    assert NO_VALUE_ABOVE_12_BITS not in decode(tiff(twelve // 2, 12, 1)).info
    assert NO_VALUE_ABOVE_12_BITS not in decode(png_of(levels(8, 1) // 16, 8, 0)).info


def test_the_note_on_twelve_bits_names_a_file(tree: Path) -> None:
    assert not any("16 bits" in note for note in open_images(tree).notes)
    (tree / "b" / "2.png").write_bytes(png_of(levels(12, 1), 16, 0))
    (note,) = (note for note in open_images(tree).notes if "16 bits" in note)
    assert note.startswith("1 image has 16 bits a value and none above 4,095 (b/2.png)")
    (tree / "c" / "0.png").write_bytes(png_of(levels(12, 1) // 2, 16, 0))
    (note,) = (note for note in open_images(tree).notes if "16 bits" in note)
    assert note.startswith(
        "2 images have 16 bits a value and none above 4,095 (b/2.png and 1 more)"
    )

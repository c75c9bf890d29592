"""One image file: read it, judge it, turn it into RGB and into the grey 28 × 28 image."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, ImagePalette, UnidentifiedImageError

from signbridge.runtime.words import listed

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
)
"""Extensions, in lower case, of the files that are read."""

OTHER_IMAGE_EXTENSIONS = frozenset(
    {".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".svg", ".tga"}
)
"""Extensions of files that are meant as images but are not read."""

KINDS = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF")
"""What is read, as messages name it."""

GREY_SIDE = 28
"""Side of the grey image, as in Sign Language MNIST."""

THUMBNAIL_SIDE = 128
"""The longest side of the small image that a store keeps."""

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a suspected decompression bomb: a quarter of a GiB in RGB."""

MAX_BYTES = 1 << 29
"""No file of a still image below ``MAX_PIXELS`` is larger."""

NO_VALUE_ABOVE_12_BITS = "no_value_above_12_bits"
"""Key in ``info`` of a decoded image: its file has 16 bits a value, and none is above 4,095."""

_FORMATS = tuple(kind.upper() for kind in KINDS)  # multi-picture JPEGs open through JPEG
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF 6.0.
_SUBFILE_TYPE = 254  # bit 0: a smaller version of another page
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_WHITE_IS_ZERO, _YCBCR = 0, 6
_PLANAR_CONFIGURATION = 284
_COLOUR_MAP = 320
_EXTRA_SAMPLES = 338
_SAMPLE_FORMAT = 339


class BadImageError(Exception):
    """An image file that cannot be used; the message completes "FILE ..."."""


def read_image_bytes(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        BadImageError: It cannot be read, is no regular file, is empty or is absurdly large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("is not a regular file")
        if status.st_size > MAX_BYTES:
            raise BadImageError(f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror or error})") from None
    if not data:
        raise BadImageError("is empty")
    return data


def decode(data: bytes) -> Image.Image:
    """Decode one still image.

    EXIF orientation is applied; transparency is laid over white; levels of any depth are scaled to
    8 bits (grey is rounded; colour of 16 bits keeps its upper byte, so it is up to a level darker).

    Args:
        data: Bytes of a file of one of ``KINDS``. Of a TIFF with previews the full image is taken.

    Returns:
        The image in mode RGB; see ``NO_VALUE_ABOVE_12_BITS`` for what its ``info`` may say.

    Raises:
        BadImageError: The bytes are no such image, are damaged, animated, too large, or of a kind
            of TIFF that would be misread.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImageError(
                    f"has {width:,} x {height:,} pixels, more than the limit of {MAX_PIXELS:,}"
                )
            _check_still(image)
            layouts = [str(tile.args) for tile in image.tile]
            if image.format == "TIFF":
                _check_samples(image)
                _widen_colour_map(image)
            if image.format == "PNG" and "transparency" in image.info:
                _match_transparent_colour(image, data)
            if image.format == "BMP" and image.mode == "RGBA" and _is_unset(image.getchannel("A")):
                image.putalpha(255)
            rgb, brightest = _to_rgb(image)
            deep = image.format != "BMP" and any(";16" in layout for layout in layouts)
            rgb.info = {NO_VALUE_ABOVE_12_BITS: True} if deep and 0 < brightest <= 4095 else {}
            return rgb
    except BadImageError:
        raise
    except Image.DecompressionBombError:
        raise BadImageError(f"has more pixels than the limit of {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        if data.startswith(_TIFF_STARTS):
            raise BadImageError(
                "is damaged, or a TIFF of a kind that is not read; save it as a PNG"
            ) from None
        raise BadImageError(f"is not a {listed(KINDS, 'or')} image") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        reason = str(error).rstrip(".") or type(error).__name__
        raise BadImageError(f"is damaged ({reason})") from None


def _is_unset(alpha: Image.Image) -> bool:
    """Whether a BMP's fourth byte is 0 throughout: programs agree to take it for opaque."""
    return alpha.getextrema() == (0, 0)


def _check_still(image: Image.Image) -> None:
    """Refuse what is more than one image."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        pages = 0
        for number in range(frames):
            image.seek(number)
            pages += not _tag(image, _SUBFILE_TYPE, 0) & 1
        if pages > 1:
            raise BadImageError(f"has {pages} pages, and only single images are read")
        image.seek(0)
    elif frames > 1 and image.format != "MPO":
        raise BadImageError("is animated, and only still images are read")


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    return image.tag_v2.get(number, default)  # type: ignore[attr-defined]


def _check_samples(image: Image.Image) -> None:
    """Refuse a TIFF without a known white, and what Pillow 12 gives other colours than it has."""
    if max(_tag(image, _BITS_PER_SAMPLE, (1,))) > 16:
        raise BadImageError("has 32-bit grey levels, and only 8 and 16 bits are read")
    if max(_tag(image, _SAMPLE_FORMAT, (1,))) > 1:
        raise BadImageError("has signed or floating levels, and only unsigned ones are read")
    plain = image.info["compression"] == "raw"
    if _tag(image, _PHOTOMETRIC, 0) == _YCBCR and plain:
        raise BadImageError("has uncompressed YCbCr colours, which are not read; save it as a PNG")
    if _tag(image, _PLANAR_CONFIGURATION, 1) == 2 and len(image.getbands()) > 1:
        wide = max(_tag(image, _BITS_PER_SAMPLE, (1,))) > 8
        unnamed_alpha = image.mode == "RGBA" and not _tag(image, _EXTRA_SAMPLES, ())
        if (wide and plain) or image.mode in ("LA", "LAB") or (unnamed_alpha and not plain):
            raise BadImageError(
                "stores its colours one after the other in a way that is not read; save it as a PNG"
            )


def _widen_colour_map(image: Image.Image) -> None:
    """Read a palette of 8-bit values, which some programs write, as libtiff does."""
    values = _tag(image, _COLOUR_MAP, ())
    if image.mode in ("P", "PA") and max(values) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(values))


def _match_transparent_colour(image: ImageFile.ImageFile, data: bytes) -> None:
    """Let a PNG's transparent colour, kept in the file's depth, meet pixels of 8 bits."""
    layout = str(image.tile[0].args)
    if layout in ("L;2", "L;4"):
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}[layout]
    elif layout == "RGB;16B":
        colour = np.array(image.info.pop("transparency"))
        with Image.open(io.BytesIO(data), formats=_FORMATS) as lower:
            # As little-endian the lower bytes pass for the upper ones.
            lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
            hit = (np.asarray(lower) == colour % 256) & (np.asarray(image) == colour // 256)
        image.paste("white", mask=Image.fromarray(hit.all(-1)))


def _to_rgb(image: Image.Image) -> tuple[Image.Image, int]:
    """The image upright in mode RGB, and the highest of its levels if they have 16 bits."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        level, top, white_is_zero = np.asarray(upright), 65535, False
        if image.format == "TIFF":
            top = 2 ** max(_tag(image, _BITS_PER_SAMPLE, (1,))) - 1
            white_is_zero = _tag(image, _PHOTOMETRIC, 0) == _WHITE_IS_ZERO
        # round(level * 255 / top): Pillow itself clips such images instead of scaling them.
        scaled = ((np.arange(65536) * 510 + top) // (2 * top)).clip(max=255).astype(np.uint8)
        if white_is_zero:
            scaled = 255 - scaled
        if "transparency" in upright.info:
            scaled[upright.info["transparency"]] = 255
        return Image.fromarray(scaled[level]).convert("RGB"), int(level.max())
    brightest = 65535
    if upright.mode in ("RGB", "RGBA"):  # of 16 bits Pillow keeps the upper byte
        upper = np.array([band.getextrema()[1] for band in upright.split()[:3]])
        brightest = int(256 * upper.max() + 255)
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB"), brightest
    return upright.convert("RGB"), brightest


def thumbnail(image: Image.Image) -> str:
    """Return a JPEG of at most 128 pixels a side, some 3 KB, in base64.

    An image that is no larger keeps its size; the aspect ratio stays.

    Args:
        image: Mode RGB, any size.
    """
    scale = min(1.0, THUMBNAIL_SIDE / max(image.size))
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def checksum_of(checksums: Sequence[str]) -> str:
    """Return the SHA-256 of a sample: of its one image, or over those of its several."""
    if len(checksums) == 1:
        return checksums[0]
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return the images of a sample in one row, each as high as the first; one as it is."""
    if len(images) == 1:
        return images[0]
    height = images[0].height
    row = [one.resize((max(1, one.width * height // one.height), height)) for one in images]
    whole = Image.new("RGB", (sum(one.width for one in row), height))
    left = 0
    for one in row:
        whole.paste(one, (left, 0))
        left += one.width
    return whole


def grey_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the grey 28 × 28 image as a row of 784 numbers.

    Grey is ITU-R 601-2 luma; each target pixel is the mean of the area that it covers, so a
    grey 28 × 28 image comes out as it went in. The aspect ratio is not kept.

    Args:
        image: Mode RGB, any size.

    Returns:
        uint8, shape (784,).
    """
    size = (GREY_SIDE, GREY_SIDE)
    small = image.convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8).reshape(-1)

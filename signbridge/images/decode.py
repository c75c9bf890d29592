"""One image file: read it, judge it, turn it into RGB and into the grey 28 × 28 image."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

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

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a suspected decompression bomb: a quarter of a GiB in RGB."""

MAX_BYTES = 1 << 29
"""No file of a still image below ``MAX_PIXELS`` is larger."""

_FORMATS = tuple(kind.upper() for kind in KINDS)  # multi-picture JPEGs open through JPEG
_SUBFILE_TYPE = 254  # TIFF 6.0; bit 0: a smaller version of another page


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

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits.

    Args:
        data: Bytes of a file of one of ``KINDS``. Of a TIFF with previews the full image is taken.

    Returns:
        The image in mode RGB.

    Raises:
        BadImageError: The bytes are no such image, are damaged, animated or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImageError(
                    f"has {width:,} x {height:,} pixels, more than the limit of {MAX_PIXELS:,}"
                )
            _check_still(image)
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
    except BadImageError:
        raise
    except Image.DecompressionBombError:
        raise BadImageError(f"has more pixels than the limit of {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        raise BadImageError(f"is not a {listed(KINDS, 'or')} image") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        reason = str(error).rstrip(".") or type(error).__name__
        raise BadImageError(f"is damaged ({reason})") from None


def _check_still(image: Image.Image) -> None:
    """Refuse what is more than one image, and grey levels of which nobody knows which is white."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        if image.mode in ("I", "F"):
            raise BadImageError("has 32-bit grey levels, and only 8 and 16 bits are read")
        pages = 0
        for number in range(frames):
            image.seek(number)
            pages += not image.tag_v2.get(_SUBFILE_TYPE, 0) & 1  # type: ignore[attr-defined]
        if pages > 1:
            raise BadImageError(f"has {pages} pages, and only single images are read")
        image.seek(0)
    elif frames > 1 and image.format != "MPO":
        raise BadImageError("is animated, and only still images are read")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.int64)
        # round(value * 255 / 65535): Pillow itself clips such images instead of scaling them.
        return Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


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

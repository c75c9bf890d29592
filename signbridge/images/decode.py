"""One image file: read it, judge it, turn it into RGB and into the grey 28 × 28 image."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"})
"""Extensions, in lower case, of the files that are read."""

OTHER_IMAGE_EXTENSIONS = frozenset(
    {".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".svg", ".tga", ".tif", ".tiff"}
)
"""Extensions of files that are meant as images but are not read."""

GREY_SIDE = 28
"""Side of the grey image, as in Sign Language MNIST."""

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a suspected decompression bomb: a quarter of a GiB in RGB."""

MAX_BYTES = 1 << 29
"""No file of a still image below ``MAX_PIXELS`` is larger."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow opens multi-picture JPEGs through JPEG


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
        data: Bytes of a JPEG, PNG, WebP or BMP file.

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
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise BadImageError("is animated, and only still images are read")
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
    except BadImageError:
        raise
    except Image.DecompressionBombError:
        raise BadImageError(f"has more pixels than the limit of {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        raise BadImageError("is not a JPEG, PNG, WebP or BMP image") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        reason = str(error).rstrip(".") or type(error).__name__
        raise BadImageError(f"is damaged ({reason})") from None


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

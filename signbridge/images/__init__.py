"""Labelled images: found, checked, given stable ids, labels and groups.

Everything starts with :func:`open_images`; what it returns is an :class:`ImageSet`. Needs NumPy
and Pillow, and SciPy where groups are looked for; never torch.
"""

from signbridge.images.groups import near_duplicate_groups
from signbridge.images.imageset import ImageSet
from signbridge.images.opening import open_images

__all__ = ["ImageSet", "near_duplicate_groups", "open_images"]

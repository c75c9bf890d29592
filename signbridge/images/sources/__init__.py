"""Where labelled images come from: one file a source, one line here that registers it.

To add a source:

1. Write ``NAME.py`` in this folder with the ``WHAT``, ``matches`` and ``read`` of
   :class:`~signbridge.images.sources.source.Source`, and its tests in ``tests/images/sources``.
2. Put the module into :data:`SOURCES`, before those that would match the same.
3. Name it in the help of ``--images``.
"""

from __future__ import annotations

from signbridge.images.sources import folders, kaggle, sample
from signbridge.images.sources.source import Asked, Candidates, Source

SOURCES: tuple[Source, ...] = (sample, kaggle, folders)
"""The sources, in the order in which they are asked whether something is theirs."""

__all__ = ["SOURCES", "Asked", "Candidates", "Source"]

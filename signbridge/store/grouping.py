"""What the groups of a store are, in words, from what its provenance says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grouping:
    """How the images of a store are grouped.

    Attributes:
        kind: ``near_duplicates``, ``signers``, ``none``, ``given`` (a file) or ``unknown``.
        one: one group, with its article: "a group of near-duplicates".
        many: several: "groups of near-duplicates".
        detail: how they were found, with a leading space, or empty.
    """

    kind: str
    one: str
    many: str
    detail: str = ""


def grouping(provenance: Mapping[str, Any]) -> Grouping:
    """Read the ``groups`` entry of a store's provenance.

    Args:
        provenance: a store's provenance.

    Returns:
        Words for its groups; without an entry they are plain groups.
    """
    value = str(provenance.get("groups") or "").strip()
    kind, _, threshold = value.partition(" ")
    if kind == "near_duplicates":
        found = f" (pixels correlated {threshold} or more)" if threshold else ""
        return Grouping(
            "near_duplicates", "a group of near-duplicates", "groups of near-duplicates", found
        )
    if value in ("class/signer", "signer/class"):
        return Grouping("signers", "a signer", "signers", f" (folders {value})")
    if value == "none":
        return Grouping("none", "an image", "images")
    if value:
        return Grouping("given", "a group", "groups", f" (as given in {value})")
    return Grouping("unknown", "a group", "groups")

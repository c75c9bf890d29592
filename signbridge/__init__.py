"""SignBridge: what a vision-language model knows about a sign and does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signbridge.runtime.torchvision import watch
from signbridge.version import __version__

if TYPE_CHECKING:
    from signbridge.store import Store as Store
    from signbridge.store import open_store as open_store

__all__ = ["Store", "__version__", "open_store"]


def __getattr__(name: str) -> Any:
    """Import the store's reader on first use, so that ``import signbridge`` stays instant."""
    if name in {"Store", "open_store"}:
        from signbridge import store

        return getattr(store, name)
    raise AttributeError(f"module 'signbridge' has no attribute {name!r}")


watch()

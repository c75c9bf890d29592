"""Who may reach the page: from this machine or with a password, under the page's own names."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from signbridge.errors import SignBridgeError

_EVERYWHERE = ("0.0.0.0", "::")


def check_access(host: str, auth: str | None, *, share: bool) -> tuple[str, str] | None:
    """Return name and password, and refuse to be reachable from elsewhere without them.

    Args:
        host: address to listen on.
        auth: ``name:password``, or None.
        share: whether a public link is wanted.

    Raises:
        SignBridgeError: an address other than loopback, or a public link, without ``auth``, or an
            ``auth`` of another form.
    """
    account = None
    if auth is not None:
        name, colon, password = auth.partition(":")
        if not (name and colon and password):
            raise SignBridgeError("--auth must be NAME:PASSWORD, both with at least one character.")
        account = (name, password)
    if account is None and share:
        raise SignBridgeError("--share makes the demo public: give --auth NAME:PASSWORD too.")
    if account is None and not is_loopback(host):
        raise SignBridgeError(
            f"--host {host} can be reached from other machines: give --auth NAME:PASSWORD too, or "
            "leave --host out to serve this machine alone."
        )
    return account


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Names:
    """The names and origins that a page is served under.

    A web page can point its own name to 127.0.0.1 ("DNS rebinding") and would then be of the same
    origin as the demo; the name in ``Host`` is what betrays it. Starlette's TrustedHostMiddleware
    takes a list of names; a page for all addresses of a machine has no such list, and an address
    cannot be rebound.

    Args:
        host: the address that the page listens on.
    """

    def __init__(self, host: str) -> None:
        self._any_address = host in _EVERYWHERE
        self._names = {"localhost", "127.0.0.1", "::1"}
        self._origins: set[str] = set()
        if not self._any_address:
            self._names.add(host.lower())
        if not is_loopback(host):
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local", socket.getfqdn().lower()}

    def add(self, url: str | None) -> None:
        """Serve the page under a public address too, such as Gradio's link or a proxy's."""
        place = urlsplit(url or "")
        if place.hostname:
            self._names.add(place.hostname)
            self._origins.add(f"{place.scheme}://{place.netloc}".lower())

    def has_host(self, host: str) -> bool:
        """Whether the page is served under what a request gives as ``Host``."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if name is None:
            return False
        return name in self._names or (self._any_address and _is_address(name))

    def has_origin(self, origin: str, host: str) -> bool:
        """Whether a request with this ``Origin`` comes from the page itself."""
        if origin.lower() in self._origins:
            return True
        scheme, _, place = origin.lower().partition("://")
        return scheme in ("http", "https") and place == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

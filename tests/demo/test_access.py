import socket

import pytest

from signbridge.demo.access import Names, check_access
from signbridge.errors import SignBridgeError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_no_password(host):
    assert check_access(host, None, share=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_another_address_needs_one(host):
    with pytest.raises(SignBridgeError, match="give --auth NAME:PASSWORD"):
        check_access(host, None, share=False)
    assert check_access(host, "me:secret:word", share=False) == ("me", "secret:word")


def test_a_public_link_needs_one():
    with pytest.raises(SignBridgeError, match="--share makes the demo public"):
        check_access("127.0.0.1", None, share=True)


@pytest.mark.parametrize("auth", ["", "me", "me:", ":secret"])
def test_a_password_has_a_name(auth):
    with pytest.raises(SignBridgeError, match="NAME:PASSWORD"):
        check_access("127.0.0.1", auth, share=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_a_page_for_this_machine_has_its_names(host):
    names = Names(host)
    for name in ("localhost", "LOCALHOST:7860", "127.0.0.1:7860", "[::1]:7860", "[::1]"):
        assert names.has_host(name)
    assert names.has_host(f"[{host}]" if ":" in host else host)
    others = ("evil.example", "localhost.evil.example", "127.0.0.2", "10.0.0.1", "[::2]", "", "[")
    assert not any(names.has_host(name) for name in others)
    assert not names.has_host(f"{socket.gethostname()}.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_page_for_every_address_has_the_addresses_and_the_machines_names(host):
    names = Names(host)
    own = socket.gethostname()
    for name in ("10.0.0.1:80", "[fe80::1]:80", own, f"{own}.local:7860", "localhost"):
        assert names.has_host(name)
    assert not names.has_host("evil.example")


def test_a_page_for_one_address_has_that():
    names = Names("192.168.1.5")
    assert names.has_host("192.168.1.5:7860")
    assert not names.has_host("192.168.1.6")
    assert not names.has_host("evil.example")


def test_a_public_address_is_a_name_and_an_origin():
    names = Names("127.0.0.1")
    assert not names.has_host("abc.gradio.live")
    names.add("https://abc.gradio.live")
    names.add("https://Demo.example.org:8443/hands")
    names.add(None)
    names.add("/hands")
    assert names.has_host("abc.gradio.live")
    assert names.has_host("demo.example.org")
    assert names.has_origin("https://demo.example.org:8443", "127.0.0.1:7860")
    assert not names.has_origin("https://demo.example.org", "127.0.0.1:7860")
    assert not names.has_host("")


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://127.0.0.1:7860", "127.0.0.1:7860", True),
        ("HTTP://LocalHost:7860", "localhost:7860", True),
        ("https://localhost", "localhost", True),
        ("http://localhost:7860", "127.0.0.1:7860", False),
        ("http://localhost:3000", "localhost:7860", False),
        ("null", "localhost", False),
        ("", "", False),
        ("file://localhost", "localhost", False),
        ("http://localhost:7860.evil.example", "localhost:7860", False),
    ],
)
def test_the_page_is_of_its_own_origin(origin, host, own):
    assert Names("localhost").has_origin(origin, host) is own

import pytest

from signbridge.demo.command import check_access, demo
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


def test_what_cannot_be_is_said_before_anything_is_loaded():
    with pytest.raises(SignBridgeError, match="port is 70000"):
        demo(port=70000)
    with pytest.raises(SignBridgeError, match="give --probes the results folder"):
        demo(model="some/model")

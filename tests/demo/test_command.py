import pytest

from signbridge.demo.command import demo
from signbridge.errors import SignBridgeError


def test_what_cannot_be_is_said_before_anything_is_loaded():
    with pytest.raises(SignBridgeError, match="port is 70000"):
        demo(port=70000)
    with pytest.raises(SignBridgeError, match="give --probes the results folder"):
        demo(model="some/model")

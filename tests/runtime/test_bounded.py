import sys

import pytest

from signbridge.errors import ModelError
from signbridge.runtime.bounded import FailedError, bounded

linux = pytest.mark.skipif(sys.platform != "linux", reason="bounds are those of Linux")


def test_what_is_returned_or_raised_comes_back():
    assert bounded(lambda: {"a": 1}, 5, 1 << 30) == {"a": 1}
    with pytest.raises(FailedError, match="invalid literal"):
        bounded(lambda: int("x"), 5, 1 << 30)

    def refuse():
        raise ModelError("model.json is of another kind.")

    with pytest.raises(ModelError, match=r"^model\.json is of another kind\.$"):
        bounded(refuse, 5, 1 << 30)


@linux
@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda: len("a" * 10**10), "more than 1 GB"),
        (lambda: 9 ** (9**9), "more than 1 second"),
        (lambda: sys.exit(3), "^3$"),
        (lambda: lambda: None, "pickle"),
    ],
)
def test_what_takes_too_much_is_ended(work, says):
    with pytest.raises(FailedError, match=says):
        bounded(work, 1, 1 << 30)

import logging
import warnings

from signbridge.runtime.terminal import plain_notices


def test_a_warning_is_one_plain_line_said_once(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with plain_notices():
            for text in ("the file is\n  newer", "the file is newer", "other"):
                warnings.warn(text, UserWarning, stacklevel=1)
            warnings.warn("for programmers", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: the file is newer\nwarning: other\n"


def test_matplotlib_is_quiet_meanwhile_and_only_then():
    logger = logging.getLogger("matplotlib")
    before = logger.level
    with plain_notices():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == before

"""Errors that a user can act on.

Every message is one sentence that names the file or value and says what to do. The command line
prints it without a traceback and exits with status 2.
"""

from collections.abc import Mapping

_LONGEST = 200


class SignBridgeError(Exception):
    """Base of all errors whose message is written for the user.

    Attributes:
        exit_status: what the command line exits with.
    """

    exit_status = 2


class ImagesError(SignBridgeError):
    """The labelled images cannot be used as they are."""


class ModelError(SignBridgeError):
    """The model, its processor or its quantisation cannot be had."""


class NamesError(ModelError):
    """The class names cannot be scored as the model's answers.

    Attributes:
        reason: why, without what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}: give other words for the classes with --answers FILE.csv, or leave the "
            "choice out with --forced_choice false."
        )
        self.reason = reason


class SiteError(ModelError):
    """A baseline inside the model cannot be read.

    Attributes:
        reason: why, without what to do.
        site: the baseline's name in a store.
    """

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"The {site!r} baseline cannot be read of this model ({reason}).")
        self.site, self.reason = site, reason


class StoreError(SignBridgeError):
    """An activation store cannot be written, read or continued."""


class ProbeError(SignBridgeError):
    """Probes cannot be trained, loaded or scored as asked."""


class Interrupted(SignBridgeError):  # noqa: N818  (not a failure: the user asked for it)
    """A run was stopped from outside; its message says how to continue."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def refuse_empty(options: Mapping[str, object]) -> None:
    """Refuse options that are texts, or lists of them, without a character.

    Raises:
        SignBridgeError: naming the first of them.
    """
    for name, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                raise SignBridgeError(f"--{name} is empty: give it a value, or leave it out.")


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, short enough to quote in a sentence."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:! ")
    if len(line) <= _LONGEST:
        return line
    sentence = line[:_LONGEST].rpartition(". ")[0]
    return sentence or line[:_LONGEST].rpartition(" ")[0] + " ..."

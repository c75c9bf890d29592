"""What a results folder calls itself, and the columns of its scores: shared with its readers."""

from pathlib import Path

from signbridge.errors import ProbeError

FORMAT = "signbridge-results"
VERSION = "1.1"
ANSWERS_FILE = "answers.csv"
COLUMNS = (
    "feature",
    "layer",
    "solver",
    "split",
    "task",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n_train",
    "n_test",
    "n_classes",
    "C",
)
TASK = "label"
"""The task of a row where the column ``task`` is missing, as in version 1.0."""
CONTROL_TASK = "group_control"
"""The task of rows whose labels were drawn at random for each group."""
COMPARISON_COLUMNS = (
    *("family", "a", "b", "metric", "difference", "ci_low", "ci_high"),
    *("p", "p_corrected", "n_comparisons"),
)

AGAIN = "run train_probes again to make the folder anew"
"""What to do about a damaged results folder."""


def require_file(path: Path) -> None:
    """Raise a :class:`ProbeError` that names the file if it is missing."""
    if not path.is_file():
        raise ProbeError(
            f"{path.parent} has no {path.name}: it is not a results folder, or train_probes was "
            "interrupted; run train_probes again."
        )

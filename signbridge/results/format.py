"""What a results folder and its files are called, shared by who writes and who reads them."""

from pathlib import Path

from signbridge.errors import ProbeError

FORMAT = "signbridge-results"
VERSION = "1.1"
SCORES_FILE = "scores.csv"
COMPARISONS_FILE = "comparisons.csv"
ANSWERS_FILE = "answers.csv"
SUMMARY_FILE = "summary.json"
PREDICTIONS_FILE = "predictions.h5"
REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
TASK = "label"
"""The task of a row where the column ``task`` is missing, as in version 1.0."""
CONTROL_TASK = "group_control"
"""The task of rows whose labels were drawn at random for each group."""

AGAIN = "run train_probes again to make the folder anew"
"""What to do about a damaged results folder."""


def require_file(path: Path) -> None:
    """Raise a :class:`ProbeError` that names the file if it is missing."""
    if not path.is_file():
        raise ProbeError(
            f"{path.parent} has no {path.name}: it is not a results folder, or train_probes was "
            "interrupted; run train_probes again."
        )


MOST_COMPARED = 8
"""The most results folders that one page compares."""

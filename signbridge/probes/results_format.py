"""What a results folder calls itself, and the columns of its scores: shared with its readers."""

FORMAT = "signbridge-results"
VERSION = "1.0"
COLUMNS = (
    "feature",
    "layer",
    "solver",
    "split",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n_train",
    "n_test",
    "n_classes",
    "C",
)

"""What the metrics are called and their constants: no torch is needed to know them."""

import numpy as np

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "top3_accuracy",
    "cross_entropy",
    "calibration_error",
    "usable_information",
)
"""Names of the metrics, in the order of the score table."""

PROBABILITY_FLOOR = float(np.finfo(np.float32).eps)
"""Least probability that enters a logarithm, that of scikit-learn's ``log_loss`` for float32.

A class missing from a training part has probability 0; without a floor one such sample would make
the cross-entropy infinite.
"""

CALIBRATION_BINS = 15

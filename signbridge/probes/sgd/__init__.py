"""The Lightning probe: what trains in batches where the exact solver cannot hold its data.

Objective and optimum are the exact solver's. :mod:`~signbridge.probes.sgd.schedule` holds every
fit's state and decides when it stops, :mod:`~signbridge.probes.sgd.optimizer` makes the steps,
:mod:`~signbridge.probes.sgd.engine` is what a sweep calls.
"""

LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
"""Shares of a Newton step, tried side by side."""

COPIES = 12
"""Arrays of the size of all parameters that a training holds."""

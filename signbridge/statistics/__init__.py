"""Metrics, intervals, p-values and similarities: NumPy in, NumPy out."""

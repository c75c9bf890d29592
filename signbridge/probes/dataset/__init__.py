"""What probes are trained on: features, splits, the DataModule."""

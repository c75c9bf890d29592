"""The exact logistic solver: data in solvable coordinates, batched L-BFGS, certificates."""

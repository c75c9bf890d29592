"""The exact logistic solver: data in solvable coordinates, batched Newton-CG, certificates."""

"""Training: what `pdnla-train` runs, the Lightning module, the average of the weights, pictures of a run."""

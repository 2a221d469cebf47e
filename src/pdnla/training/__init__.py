"""Training: the run behind `pdnla-train`, the Lightning module, its options, several devices, resuming, sweeps."""

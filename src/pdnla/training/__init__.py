"""Training: the run of ``pdnla-train``, the Lightning module, options, several devices, resuming and sweeps."""

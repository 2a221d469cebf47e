"""Training data: photographs, shards, pairs, pseudo-pairs and data modules."""

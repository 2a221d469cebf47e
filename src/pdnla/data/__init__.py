"""Reading images safely, datasets of photographs and of pairs, pseudo-pairs, data modules."""

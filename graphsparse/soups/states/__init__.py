"""State dicts: mixtures of them, tied tensors, groups of tensors, what of them is pruned, and where they lie."""

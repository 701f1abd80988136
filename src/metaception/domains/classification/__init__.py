"""Few-shot classification: episodes, losses, networks."""

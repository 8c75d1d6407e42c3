"""Where commands run: a root directory of their own, no network, limits, and an end that nothing survives."""

"""How it is learned: from cache entries to steps of the optimizer."""

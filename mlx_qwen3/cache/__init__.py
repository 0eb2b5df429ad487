"""Key/value caches: what is kept of the tokens already seen."""

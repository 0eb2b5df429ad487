"""A sliding window with attention sinks: caches of a bounded number of tokens."""

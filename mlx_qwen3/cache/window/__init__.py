"""Sliding-window KV caches with attention sinks and rollback."""

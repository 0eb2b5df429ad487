"""Keeps an engine within the memory of its machine: a guard, caches parked on disk, models unloaded."""

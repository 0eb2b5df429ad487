"""Moves files from the hub: counts their bytes, stops at once, and goes on where a download stopped."""

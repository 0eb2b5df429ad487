"""Commands that write to the hub."""

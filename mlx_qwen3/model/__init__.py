"""The architecture: a module tree that mirrors Qwen3."""

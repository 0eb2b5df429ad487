"""Qwen3 in MLX: the architecture, and its preparation for a device."""

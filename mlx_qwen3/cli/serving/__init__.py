"""`mlx-qwen3 serve`: the command, and what to give to clients."""

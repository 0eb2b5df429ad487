"""One thread that owns MLX, and the sessions, batches and completions that run on it."""

from mlx_qwen3.engine.engine import Engine as Engine

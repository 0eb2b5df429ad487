"""Published checkpoints to MLX weights: planned ahead, streamed, and put in place only when whole."""

from mlx_qwen3.conversion.planning import Plan as Plan
from mlx_qwen3.conversion.run import Progress as Progress
from mlx_qwen3.conversion.run import Report as Report
from mlx_qwen3.conversion.run import convert as convert
from mlx_qwen3.conversion.run import plan as plan

"""Published checkpoints to MLX weights: planned ahead, streamed, and put in place only when whole."""

from mlx_qwen3.conversion.convert import Progress as Progress
from mlx_qwen3.conversion.convert import Report as Report
from mlx_qwen3.conversion.convert import convert as convert
from mlx_qwen3.conversion.convert import plan as plan
from mlx_qwen3.conversion.plan import Plan as Plan

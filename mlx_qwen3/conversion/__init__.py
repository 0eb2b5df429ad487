"""Published checkpoints to MLX weights: planned ahead, streamed, and put in place only when whole."""

from mlx_qwen3.conversion.heatmap import check_report_path as check_report_path
from mlx_qwen3.conversion.heatmap import write_report as write_report
from mlx_qwen3.conversion.planning import Plan as Plan
from mlx_qwen3.conversion.progress import Progress as Progress
from mlx_qwen3.conversion.run import Report as Report
from mlx_qwen3.conversion.run import convert as convert
from mlx_qwen3.conversion.run import plan as plan
from mlx_qwen3.conversion.verification import Verification as Verification
from mlx_qwen3.conversion.verification import verify as verify

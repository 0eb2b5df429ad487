"""Converts published checkpoints to MLX weights in a stream, and verifies the result."""

from mlx_qwen3.conversion.pipeline import Report as Report
from mlx_qwen3.conversion.pipeline import convert as convert
from mlx_qwen3.conversion.pipeline import plan as plan
from mlx_qwen3.conversion.planning import ConversionPlan as ConversionPlan
from mlx_qwen3.conversion.progress import Progress as Progress
from mlx_qwen3.conversion.verification.heatmap import check_report_path as check_report_path
from mlx_qwen3.conversion.verification.heatmap import write_report as write_report
from mlx_qwen3.conversion.verification.verify import Verification as Verification
from mlx_qwen3.conversion.verification.verify import verify as verify

"""Checks that this machine computes what it should, and measures what it should be quick at."""

from mlx_qwen3.doctor.report import Finding as Finding
from mlx_qwen3.doctor.report import Report as Report
from mlx_qwen3.doctor.run import diagnose as diagnose

"""Qwen3 on Apple silicon, in MLX. Importing this package is light: rooms open when they are used."""

from __future__ import annotations

from mlx_qwen3.blas import load_blas

BLAS = load_blas()
"""The BLAS library loaded for MLX's CPU backend, or None."""

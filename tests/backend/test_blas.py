"""A fast BLAS is loaded where MLX needs one, before MLX and without it."""

from __future__ import annotations

from fresh_python import python


def test_import_is_light() -> None:
    heavy = "mlx.core", "torch", "transformers", "numpy", "psutil", "mlx_qwen3.model"
    code = "import sys, mlx_qwen3; print([m for m in %r if m in sys.modules])" % (heavy,)  # noqa: UP031
    assert python(code) == "[]"


BLAS = "import mlx_qwen3; print(mlx_qwen3.BLAS)"


def test_no_blas_is_loaded_where_none_is_wanted_or_needed() -> None:
    assert python(BLAS, MLX_QWEN3_PLAIN="1") == "None"
    assert python("import mlx.core; " + BLAS) == "None"
    assert python("import sys; sys.platform = 'darwin'; " + BLAS) == "None"


def test_a_machine_without_a_fast_blas_still_computes() -> None:
    code = (
        "import ctypes\ndef missing(*a, **k): raise OSError('no such library')\n"
        "real, ctypes.CDLL = ctypes.CDLL, missing\nimport mlx_qwen3\nctypes.CDLL = real\n"
        "import mlx.core as mx\nprint(mlx_qwen3.BLAS, (mx.ones((3, 4)) @ mx.ones((4, 2))).tolist()[2])"
    )
    assert python(code) == "None [4.0, 4.0]"

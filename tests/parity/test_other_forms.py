"""Adapters that PEFT wrote, and weights that compressed-tensors packed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.separate_process import in_transformers, needs_transformers
from tiny_checkpoints import DENSE, IDS, logits, write_checkpoint

from mlx_qwen3 import load_model
from mlx_qwen3.adapters import add_adapter, read_adapter
from mlx_qwen3.conversion import convert

pytestmark = [pytest.mark.parity, needs_transformers]


@pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")
@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"use_rslora": True, "rank_pattern": {"v_proj": 2}}], ids=str
)
def test_adapters_of_peft(tmp_path: Path, options: dict[str, Any]) -> None:
    write_checkpoint(tmp_path / "base", DENSE)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    expected = in_transformers("peft_logits", base, adapter, np.array(IDS), **options)[0]
    model = load_model(base)
    plain = logits(model)
    add_adapter(model, read_adapter(adapter), "base")
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)
    assert np.abs(plain - expected).max() > 0.05
    convert(base, tmp_path / "fused", bits=None, adapter=adapter, verify=False)
    np.testing.assert_allclose(logits(load_model(tmp_path / "fused")), expected, atol=1e-4)


@pytest.mark.skipif(find_spec("compressed_tensors") is None, reason="needs compressed-tensors")
@pytest.mark.parametrize(("symmetric", "is_float"), [(True, False), (False, False), (True, True)])
def test_what_compressed_tensors_packed(tmp_path: Path, symmetric: bool, is_float: bool) -> None:
    write_checkpoint(tmp_path / "base", DENSE)
    packed = tmp_path / "packed"
    arguments = (tmp_path / "base", packed, np.array(IDS), symmetric, is_float)
    expected = in_transformers("compress", *arguments)[0]
    convert(packed, tmp_path / "plain", bits=None, dtype="float32", verify=False)
    np.testing.assert_allclose(logits(load_model(tmp_path / "plain")), expected, atol=1e-4)

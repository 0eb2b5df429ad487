"""Loading for a GPU runs one step, so that the first token waits for no compiler."""

from __future__ import annotations

import pytest

from mlx_qwen3 import load_model
from mlx_qwen3.engine.loading import warm_up as module
from mlx_qwen3.engine.loading.warm_up import warm_up


def test_a_gpu_runs_one_step_and_a_cpu_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("demo")
    calls: list[tuple[int, ...]] = []
    cls = type(model)
    original = cls.__call__
    monkeypatch.setattr(
        cls, "__call__", lambda self, ids, cache=None: calls.append(ids.shape) or original(self, ids, cache)
    )
    warm_up(model)
    assert calls == []
    monkeypatch.setattr(module, "is_cpu", lambda: False)
    warm_up(model)
    assert calls == [(1, 1)]

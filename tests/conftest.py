"""Shared fixtures: small models of every kind, with the drawn weights of `parity.model_cases`."""

from __future__ import annotations

from collections.abc import Callable

import mlx_qwen3  # noqa: F401  # isort: skip  # before mlx.core: brings the fast BLAS
import mlx.core as mx
import pytest
from parity.model_cases import DENSE, MOE, Raw, weights

from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

KINDS: dict[str, Raw] = {
    "dense": DENSE,
    "dense-tied": {**DENSE, "tie_word_embeddings": True},
    "moe": MOE,
}


def build(raw: Raw) -> Model:
    """The fp32 model of this config with its drawn weights, loaded as from a published checkpoint."""
    model = Model(ModelConfig.from_dict(raw))
    tensors = {name: mx.array(value) for name, value in weights(raw).items()}
    model.load_weights(list(model.sanitize(tensors).items()), strict=True)
    mx.eval(model.parameters())
    return model.eval()


@pytest.fixture(params=list(KINDS))
def tiny_raw(request: pytest.FixtureRequest) -> Raw:
    """config.json of a small model, once for each kind."""
    return dict(KINDS[request.param])


@pytest.fixture
def tiny_model(tiny_raw: Raw) -> Model:
    """A small fp32 model, once for each kind."""
    return build(tiny_raw)


@pytest.fixture
def make_model() -> Callable[[Raw], Model]:
    """Builds the small model of a config of `parity.model_cases`."""
    return build

"""transformers' Qwen3 on the weights of `model_cases`. Needs torch; imported by what may use it."""

from __future__ import annotations

import numpy as np
import torch
from parity.model_cases import GREEDY_TOKENS, Raw, is_sparse, weights
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

# A reference must not vary: with several threads, one run of seven was off by 1e-3 in one case.
torch.set_num_threads(1)


def reference(raw: Raw) -> torch.nn.Module:
    """transformers' model of this config with our drawn weights, in fp32."""
    is_moe = raw["model_type"] == "qwen3_moe"
    config_class, model_class = (
        (Qwen3MoeConfig, Qwen3MoeForCausalLM) if is_moe else (Qwen3Config, Qwen3ForCausalLM)
    )
    model = model_class(config_class(**raw)).float().eval()
    state = _stacked({name: torch.from_numpy(value) for name, value in weights(raw).items()}, raw)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if raw["tie_word_embeddings"] else set())
    model.tie_weights()
    return model


def _stacked(state: dict[str, torch.Tensor], raw: Raw) -> dict[str, torch.Tensor]:
    """Experts joined as transformers 5 holds them."""
    for layer in range(raw["num_hidden_layers"]):
        if not is_sparse(raw, layer):
            continue
        prefix = f"model.layers.{layer}.mlp.experts"

        def take(name: str, prefix: str = prefix) -> list[torch.Tensor]:
            return [state.pop(f"{prefix}.{i}.{name}.weight") for i in range(raw["num_experts"])]

        gates, ups = take("gate_proj"), take("up_proj")
        state[f"{prefix}.gate_up_proj"] = torch.stack(
            [torch.cat(pair) for pair in zip(gates, ups, strict=True)]
        )
        state[f"{prefix}.down_proj"] = torch.stack(take("down_proj"))
    return state


@torch.no_grad()
def logits(model: torch.nn.Module, ids: np.ndarray, last: int) -> np.ndarray:
    """ids (B, L) -> logits of the last positions (B, last, V)."""
    return model(torch.from_numpy(ids), logits_to_keep=last).logits.numpy()


@torch.no_grad()
def greedy(model: torch.nn.Module, ids: np.ndarray, count: int = GREEDY_TOKENS) -> list[int]:
    """The likeliest continuation of ids (1, L)."""
    inputs, cache, text = torch.from_numpy(ids), None, []
    for _ in range(count):
        out = model(inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        inputs, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        text.append(int(inputs))
    return text

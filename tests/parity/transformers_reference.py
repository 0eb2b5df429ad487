"""transformers' Qwen3, as the reference. Needs torch; tests call it through `in_transformers`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from parity.model_cases import GREEDY_TOKENS, Raw, is_sparse, weights

# MKL, which computes torch's cos and sin, picks its kernel in the first call. If two threads call it first
# at the same time, one of them may get the kernel of low accuracy, which is 1.5e-4 off; the logits are then
# 1e-3 off (https://github.com/pytorch/pytorch/issues/188792). So torch uses one thread.
torch.set_num_threads(1)

# Fields of published files that transformers' config classes spell differently, or add themselves.
OLD_FIELDS = ("architectures", "model_type", "rope_theta", "rope_scaling")


def surroundings() -> tuple[int, bool]:
    """How many threads compute, and whether our package (and so our BLAS) is loaded in this process."""
    return torch.get_num_threads(), "mlx_qwen3" in sys.modules


def reference(raw: Raw) -> torch.nn.Module:
    """transformers' model of this config with the weights of `model_cases`, in fp32."""
    model = _blank(raw, raw).float()
    state = _stacked({name: torch.from_numpy(value) for name, value in weights(raw).items()}, raw)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if raw["tie_word_embeddings"] else set())
    model.tie_weights()
    return model


def _blank(raw: Raw, fields: Raw) -> torch.nn.Module:
    """A model of the architecture of `raw`, with a config of `fields`."""
    name = "Qwen3Moe" if raw["model_type"] == "qwen3_moe" else "Qwen3"
    config = getattr(transformers, f"{name}Config")(**fields)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def _stacked(state: dict[str, torch.Tensor], raw: Raw) -> dict[str, torch.Tensor]:
    """The tensors with experts stacked, as transformers 5 stores them."""
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


def logits(raw: Raw, ids: np.ndarray, last: int) -> np.ndarray:
    """ids (B, L) -> logits of the last positions (B, last, V), with the weights of `model_cases`."""
    return _logits(reference(raw), ids, logits_to_keep=last)


@torch.no_grad()
def _logits(model: torch.nn.Module, ids: np.ndarray, **options: Any) -> np.ndarray:
    return model(torch.from_numpy(ids), **options).logits.float().numpy()


@torch.no_grad()
def greedy(raw: Raw, ids: np.ndarray, count: int = GREEDY_TOKENS) -> list[int]:
    """The likeliest continuation of ids (1, L), with the weights of `model_cases`."""
    model = reference(raw)
    inputs, cache, text = torch.from_numpy(ids), None, []
    for _ in range(count):
        out = model(inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        inputs, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        text.append(int(inputs))
    return text


def save(
    raw: Raw, more: Raw, folder: Path, ids: np.ndarray, dtype: str = "float32", **options: Any
) -> np.ndarray:
    """Write a random model of config `raw` as transformers does; return its logits of ids (B, L)."""
    fields = {key: value for key, value in raw.items() if key not in OLD_FIELDS}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    torch.manual_seed(0)
    model = _blank(raw, fields | rope | more).to(getattr(torch, dtype))
    model.save_pretrained(folder, **options)
    return _logits(model, ids)


def loaded(folder: Path, ids: np.ndarray) -> np.ndarray:
    """The logits of ids (B, L) of the model that transformers loads from `folder`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return _logits(model, ids)


@torch.no_grad()
def embeddings(folder: Path, texts: list[str], instruction: str | None) -> np.ndarray:
    """Embeddings (N, hidden), as the card of Qwen3-Embedding computes them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = transformers.AutoModel.from_pretrained(folder, dtype="float32").eval()
    if instruction is not None:
        texts = [f"Instruct: {instruction}\nQuery:{text}" for text in texts]
    rows = []
    for start in range(0, len(texts), 16):
        inputs = tokenizer(texts[start : start + 16], padding=True, return_tensors="pt")
        last = model(**inputs).last_hidden_state[:, -1]  # padded on the left
        rows.append(torch.nn.functional.normalize(last, p=2, dim=1).numpy())
    return np.concatenate(rows)


@torch.no_grad()
def sentence_embeddings(folder: Path, texts: list[str], prompt: str | None, dimensions: int) -> np.ndarray:
    """The same by sentence-transformers, which reads modules.json."""
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(
        str(folder), truncate_dim=dimensions, device="cpu"
    ).float()
    return np.asarray(model.encode(texts, prompt=prompt, normalize_embeddings=True, batch_size=7))


@torch.no_grad()
def scores(folder: Path, query: str, documents: list[str], instruction: str) -> list[float]:
    """Scores of documents, as the card of Qwen3-Reranker computes them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    result = []
    for document in documents:
        text = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        parts = [tokenizer.encode(part, add_special_tokens=False) for part in (before, text, after)]
        logits = model(torch.tensor([parts[0] + parts[1] + parts[2]])).logits[0, -1]
        answers = logits[[tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]]
        result.append(torch.log_softmax(answers, 0)[1].exp().item())
    return result


@torch.no_grad()
def peft_logits(folder: Path, adapter: Path, ids: np.ndarray, **options: Any) -> np.ndarray:
    """Train nothing: make an adapter of random numbers with PEFT, save it, and return its logits."""
    import peft

    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], **options)
    adapted = peft.get_peft_model(model, config).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.1)
        elif "magnitude" in name:
            parameter.mul_(torch.rand_like(parameter) * 0.4 + 0.8)
    adapted.save_pretrained(adapter)
    return _logits(adapted, ids)


@torch.no_grad()
def compress(folder: Path, output: Path, ids: np.ndarray, symmetric: bool, is_float: bool) -> np.ndarray:
    """Write the model in `folder` as compressed-tensors packs it; return its logits once unpacked."""
    import json

    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from safetensors.torch import load_file, save_file

    layout = "naive-quantized" if is_float else "pack-quantized"
    kind = (
        {"num_bits": 8, "type": "float", "strategy": "channel"}
        if is_float
        else {"num_bits": 4, "type": "int"}
    )
    kind |= {"symmetric": symmetric} | ({} if is_float else {"strategy": "group", "group_size": 32})
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**kind))
    compressor = BaseCompressor.get_value_from_registry(layout)
    tensors, meant = {}, {}
    for name, value in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = meant[name] = value
            continue
        groups = value.reshape(len(value), -1, value.shape[1] if is_float else 32)
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        if is_float:
            scale, zero = torch.maximum(high, -low) / 448, None
        elif symmetric:
            scale, zero = torch.maximum(high, -low) / 7.5, None
        else:
            scale = (high - low) / 15
            zero = (torch.round(-low / scale) - 8).clamp(-8, 7).to(torch.int8)
        state = {"weight": value, "weight_scale": scale} | (
            {} if zero is None else {"weight_zero_point": zero}
        )
        packed = compressor.compress(state, scheme)
        path = name.removesuffix("weight")
        tensors |= {path + leaf: part.contiguous() for leaf, part in packed.items()}
        meant[name] = compressor.decompress(packed, scheme)["weight"].float()
    output.mkdir()
    save_file(tensors, output / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    group = {"targets": ["Linear"], "weights": json.loads(QuantizationArgs(**kind).model_dump_json())}
    quantization = {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": group},
    }
    (output / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    model.load_state_dict(meant, strict=False)
    return _logits(model, ids)

"""Opens a GGUF file as a source checkpoint: maps names and metadata to those Qwen publishes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.checkpoint.validation import build_model, check_counts, validate
from mlx_qwen3.conversion.source.gguf_file import GgufFile, GgufTensor, read_gguf
from mlx_qwen3.conversion.source.gguf_tokenizer import tokenizer_files
from mlx_qwen3.conversion.source.original import SourceCheckpoint
from mlx_qwen3.errors import CheckpointError, ConfigError, one_line
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.rope import yarn_attention_factor

# general.architecture -> model_type and architectures of config.json
ARCHITECTURES = {"qwen3": ("qwen3", "Qwen3ForCausalLM"), "qwen3moe": ("qwen3_moe", "Qwen3MoeForCausalLM")}
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
}
LAYER_KEY = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


def open_gguf(path: Path) -> SourceCheckpoint:
    """The checkpoint in a GGUF file. Raises CheckpointError, ConfigError, ConversionError, TokenizerError."""
    file = read_gguf(path)
    raw = _config(file)
    config = ModelConfig.from_dict(raw)
    tensors = _renamed(file.tensors)
    stored = {name: _stored(tensor) for name, tensor in tensors.items()}
    check_counts(path, config, stored)
    validate(path, build_model(config), stored)
    files = tokenizer_files(file, raw["max_position_embeddings"])
    return SourceCheckpoint(path, raw, config, tensors, partial(_write_files, files))


def _write_files(files: Mapping[str, str], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def published_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; an unknown name stays as it is."""
    if match := LAYER_KEY.fullmatch(name):
        layer, part = match.groups()
        return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight" if part in LAYER_NAMES else name
    stem = name.removesuffix(".weight")
    return f"{NAMES[stem]}.weight" if stem in NAMES else name


def _renamed(tensors: Iterable[GgufTensor]) -> dict[str, GgufTensor]:
    """`tensors` by the names that Qwen publishes, which they are given."""
    renamed: dict[str, GgufTensor] = {}
    for tensor in tensors:
        tensor.name = published_name(tensor.name)
        if tensor.name in renamed:
            raise CheckpointError(f"{tensor.file} holds {tensor.name} twice; download it again")
        renamed[tensor.name] = tensor
    return renamed


def _stored(tensor: GgufTensor) -> StoredTensor:
    # For the check of shapes: in whatever format it is stored, it is read as numbers.
    return StoredTensor(tensor.name, tensor.file, tensor.shape, "F32", tensor.offset, tensor.num_bytes)


def _config(file: GgufFile) -> dict[str, Any]:
    """The content of config.json, as Qwen publishes it."""
    architecture = file.fields.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = " or ".join(ARCHITECTURES)
        raise ConfigError(
            f"{file.path} is a {one_line(architecture, 40)} model, not {known}; it cannot be converted"
        )
    model_type, name = ARCHITECTURES[architecture]
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    values = _Fields(file, architecture)
    heads = values.integer("attention.head_count")
    config: dict[str, Any] = {
        "architectures": [name],
        "attention_bias": False,
        "hidden_act": "silu",
        "model_type": model_type,
        "hidden_size": values.integer("embedding_length"),
        "num_hidden_layers": values.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": values.integer("attention.head_count_kv", heads),
        "head_dim": values.integer(
            "attention.key_length", values.integer("embedding_length") // max(heads, 1)
        ),
        "rms_norm_eps": values.number("attention.layer_norm_rms_epsilon", 1e-6),
        "max_position_embeddings": values.integer("context_length"),
        "rope_theta": values.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(values),
        "tie_word_embeddings": "output.weight" not in shapes,
        "torch_dtype": "bfloat16",
        "vocab_size": shapes.get("token_embd.weight", (1,))[0],
    }
    if model_type == "qwen3_moe":
        config |= _experts(values)
    config["intermediate_size"] = values.integer("feed_forward_length", config.get("moe_intermediate_size"))
    return config | _special_ids(file.fields)


def _experts(values: _Fields) -> dict[str, Any]:
    return {
        "num_experts": values.integer("expert_count"),
        "num_experts_per_tok": values.integer("expert_used_count"),
        "moe_intermediate_size": values.integer("expert_feed_forward_length"),
        # GGUF does not store these. Every published Qwen3 mixture of experts has these values.
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _rope_scaling(values: _Fields) -> dict[str, Any] | None:
    rope_type = values.get("rope.scaling.type")
    factor = values.number("rope.scaling.factor", 1.0)
    if rope_type in (None, "none") or factor == 1.0:
        return None
    scaling: dict[str, Any] = {"rope_type": rope_type, "factor": factor}
    if (length := values.get("rope.scaling.original_context_length")) is not None:
        scaling["original_max_position_embeddings"] = length
    for name in ("beta_fast", "beta_slow"):
        if values.get(f"rope.scaling.yarn_{name}") is not None:
            scaling[name] = values.number(f"rope.scaling.yarn_{name}")
    attn_factor = values.number("rope.scaling.attn_factor", 1.0)
    if attn_factor != 1.0:  # llama.cpp multiplies YaRN's own factor by it
        scaling["attention_factor"] = attn_factor * yarn_attention_factor(factor)
    return scaling


def _special_ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos"}
    ids = {key: fields.get(f"tokenizer.ggml.{name}_token_id") for key, name in names.items()}
    return {key: id_ for key, id_ in ids.items() if isinstance(id_, int)}


class _Fields:
    """The metadata of one architecture, with the type of each value checked."""

    def __init__(self, file: GgufFile, architecture: str):
        self._file, self._architecture = file, architecture

    def get(self, key: str) -> Any:
        return self._file.fields.get(f"{self._architecture}.{key}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        if isinstance(value, list) and len(set(value)) == 1:  # one value for each layer, all equal
            value = value[0]
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._error(key, "a whole number", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = default if self.get(key) is None else self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(key, "a number", value)
        # Stored in 32 bits, 1e-6 would come back as 9.999999974752427e-07.
        return float(str(np.float32(value)))

    def _error(self, key: str, expected: str, value: Any) -> ConfigError:
        problem = "is missing" if value is None else f"must be {expected}, not {json.dumps(value)[:80]}"
        return ConfigError(f"{self._file.path}: {self._architecture}.{key} {problem}")

"""GGUF files of small random weights, written by the `gguf` package as llama.cpp's converter would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tiny_checkpoints import published_tensors

Kind = gguf.GGMLQuantizationType
Weights = dict[str, np.ndarray]

# Names as llama.cpp's own table has them, to be independent of ours.
ARCHITECTURES = {"qwen3": gguf.MODEL_ARCH.QWEN3, "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE}


def gguf_weights(raw: Mapping[str, Any]) -> Weights:
    """Random weights under GGUF's names, experts stacked."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[raw["model_type"]], raw["num_hidden_layers"])
    stacks: dict[str, dict[int, np.ndarray]] = {}
    weights: Weights = {}
    for name, value in published_tensors(dict(raw)).items():
        array = np.array(value) * (1.0 if "norm" in name else 0.3)
        if ".experts." in name:
            head, _, rest = name.partition(".experts.")
            index, _, leaf = rest.partition(".")
            stacks.setdefault(f"{head}.experts.{leaf}", {})[int(index)] = array
        else:
            weights[named(names, name)] = array
    for name, members in stacks.items():
        weights[named(names, name)] = np.stack([members[i] for i in range(len(members))])
    return weights


def named(names: Any, name: str) -> str:
    return str(names.get_name(name, try_suffixes=(".weight",)))


def stored(array: np.ndarray, kind: Kind, seed: int = 0) -> np.ndarray:
    """`array` as it is stored; random blocks where the package cannot quantize to this kind."""
    if array.ndim == 1:
        return array.astype(np.float32)
    try:
        return gguf.quantize(array, kind)
    except (NotImplementedError, gguf.QuantError):
        return random_blocks(array.shape, kind, seed)


def random_blocks(shape: tuple[int, ...], kind: Kind, seed: int) -> np.ndarray:
    """Random bytes, of which those that are scales in 16 bits are small numbers."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // values, size), np.uint8)
    scale = np.float16(SCALES.get(kind, 0.01))
    for place in SCALE_PLACES[kind]:
        noisy = (scale * random.uniform(0.5, 1, blocks.shape[:-1])).astype(np.float16)
        blocks[..., place : place + 2] = noisy[..., None].view(np.uint8)
    if kind is Kind.IQ1_M:  # its scale is spread over the high bits of four 16-bit numbers
        high = (np.array([0x1, 0x2, 0x0, 0x2], np.uint8) << 4).astype(np.uint8)  # 0x2021: about 0.008
        blocks[..., 49:56:2] = (blocks[..., 49:56:2] & 0x0F) | high
    if kind is Kind.NVFP4:
        blocks[..., :4] = 0x28 + (blocks[..., :4] & 7)
    return blocks.reshape(*shape[:-1], -1)


# Where a block has 16-bit scales, as ggml's structs lay it out.
SCALE_PLACES: dict[Kind, tuple[int, ...]] = {
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q4_K: (0, 2),
    Kind.Q5_K: (0, 2),
    Kind.Q6_K: (208,),
    Kind.IQ2_XXS: (0,),
    Kind.IQ2_XS: (0,),
    Kind.IQ2_S: (0,),
    Kind.IQ3_XXS: (0,),
    Kind.IQ3_S: (0,),
    Kind.IQ1_S: (0,),
    Kind.IQ1_M: (),
    Kind.IQ4_NL: (0,),
    Kind.IQ4_XS: (0,),
    Kind.NVFP4: (),
}
SCALES = {Kind.Q6_K: 2e-4, Kind.Q3_K: 2e-3, Kind.Q4_K: 1e-3, Kind.Q5_K: 5e-4, Kind.IQ4_XS: 1e-4}


def write_gguf(
    path: Path,
    raw: Mapping[str, Any],
    weights: Weights,
    kind: Kind | Callable[[str], Kind],
    tokenizer: Path | None = None,
    max_tensors: int = 0,
    more: Mapping[str, Any] | None = None,
) -> Weights:
    """Write the file; returns its weights once dequantized. more: metadata of the architecture."""
    architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[raw["model_type"]]]
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=max_tensors)
    add_metadata(writer, raw)
    for key, value in (more or {}).items():
        add: Any = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{writer.arch}.{key}", value)
    if tokenizer is not None:
        add_tokenizer(writer, tokenizer, raw["vocab_size"])
    result: Weights = {}
    for seed, (name, array) in enumerate(weights.items()):
        chosen = kind(name) if callable(kind) else kind
        data = stored(array, chosen, seed)
        is_vector = array.ndim == 1
        quantized = None if is_vector or chosen in (Kind.F32, Kind.F16) else chosen
        writer.add_tensor(name, data, raw_dtype=quantized)
        result[name] = data if is_vector else gguf.dequantize(data, chosen).reshape(array.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return result


def add_metadata(writer: gguf.GGUFWriter, raw: Mapping[str, Any]) -> None:
    writer.add_context_length(raw["max_position_embeddings"])
    writer.add_embedding_length(raw["hidden_size"])
    writer.add_block_count(raw["num_hidden_layers"])
    writer.add_feed_forward_length(raw["intermediate_size"])
    writer.add_head_count(raw["num_attention_heads"])
    writer.add_head_count_kv(raw["num_key_value_heads"])
    writer.add_key_length(raw["head_dim"])
    writer.add_value_length(raw["head_dim"])
    writer.add_layer_norm_rms_eps(raw["rms_norm_eps"])
    writer.add_rope_freq_base(raw["rope_theta"])
    if "num_experts" in raw:
        writer.add_expert_count(raw["num_experts"])
        writer.add_expert_used_count(raw["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(raw["moe_intermediate_size"])


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    """The tokenizer of a folder as llama.cpp's converter writes it, padded to the rows of the embedding."""
    content = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = {id_: (text, gguf.TokenType.NORMAL) for text, id_ in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        tokens[token["id"]] = (token["content"], kind)
    ids = {text: id_ for id_, (text, _) in tokens.items()}
    rows = range(max(vocab_size, len(tokens)))
    entries = [tokens.get(i, (f"[PAD{i}]", gguf.TokenType.UNUSED)) for i in rows]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([text for text, _ in entries])
    writer.add_token_types([kind for _, kind in entries])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_eos_token_id(ids[config["eos_token"]])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())

"""llama.cpp as a peer of benchmarks: a GGUF file of the same shape with random weights, and its server.

Speed does not depend on the weights' values, so those of the checkpoint are not converted. The vocabulary is
made up too: prompts are token ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

# Bits per weight of a checkpoint -> GGUF's kind, and the bytes and values of its blocks.
KINDS = {4: ("Q4_0", 18, 32), 8: ("Q8_0", 34, 32), 16: ("BF16", 2, 1)}
SCALE = 0.003
CONTEXT_STEP = 256
FILE = "llama.cpp.gguf"
# Random bytes that are drawn; larger tensors repeat them.
DRAWN = 2**22


def can_be_written(config: dict[str, Any]) -> bool:
    """Whether GGUF has a kind of the checkpoint's bits, which is as fast."""
    return _bits(config) in KINDS


def gguf_of(folder: Path) -> Path:
    """The GGUF file beside a checkpoint, in its shape; written if it is not there yet."""
    path = folder / FILE
    if not path.exists():
        partial = folder / f".{FILE}"
        _write(partial, json.loads((folder / "config.json").read_text()))
        partial.rename(path)
    return path


def _bits(config: dict[str, Any]) -> int:
    quantization = config.get("quantization")
    return int(quantization["bits"]) if quantization else 16


def _write(path: Path, config: dict[str, Any]) -> None:
    import gguf

    is_moe = bool(config.get("num_experts"))
    arch = "qwen3moe" if is_moe else "qwen3"
    writer = gguf.GGUFWriter(str(path), arch)
    add_sizes(writer, config)
    if is_moe:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"t{number}" for number in range(size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges(["t 0"])
    for name, shape in _tensors(config, is_moe):
        _add(writer, name, shape, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_sizes(writer: Any, config: dict[str, Any]) -> None:
    """Say in a GGUF file what a config says of the model's sizes, but for its experts'."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _tensors(config: dict[str, Any], is_moe: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, (outputs, inputs), as llama.cpp's converter gives them."""
    hidden, head = config["hidden_size"], config["head_dim"]
    heads, key_heads = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "token_embd.weight", (config["vocab_size"], hidden)
    yield "output_norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "output.weight", (config["vocab_size"], hidden)
    for number in range(config["num_hidden_layers"]):
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm": (hidden,),
            "ffn_norm": (hidden,),
            "attn_q_norm": (head,),
            "attn_k_norm": (head,),
        }
        layer |= {"attn_q": (heads, hidden), "attn_k": (key_heads, hidden), "attn_v": (key_heads, hidden)}
        layer |= {"attn_output": (hidden, heads)}
        experts, inner = config.get("num_experts", 0), config["intermediate_size"]
        if is_moe:
            inner = config["moe_intermediate_size"]
            layer |= {"ffn_gate_inp": (experts, hidden), "ffn_down_exps": (experts, hidden, inner)}
            layer |= dict.fromkeys(("ffn_gate_exps", "ffn_up_exps"), (experts, inner, hidden))
        else:
            layer |= {"ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}
        for name, shape in layer.items():
            yield f"blk.{number}.{name}.weight", shape


def _add(writer: Any, name: str, shape: tuple[int, ...], config: dict[str, Any]) -> None:
    import gguf

    if len(shape) == 1:
        writer.add_tensor(name, np.ones(shape, np.float32))
        return
    if "ffn_gate_inp" in name:  # which llama.cpp keeps in fp32
        writer.add_tensor(name, _random(4 * int(np.prod(shape)), "F32", 4).view(np.float32).reshape(shape))
        return
    kind, block_bytes, block_values = KINDS[_bits(config)]
    values = int(np.prod(shape))
    data = _random(values // block_values * block_bytes, kind, block_bytes)
    data = data.reshape(*shape[:-1], shape[-1] // block_values * block_bytes)
    writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])


def _random(num_bytes: int, kind: str, block_bytes: int) -> Any:
    """Random blocks, whose numbers are small."""
    rng = np.random.default_rng(0)
    blocks = min(DRAWN, num_bytes) // block_bytes
    if kind in ("F32", "BF16"):
        numbers = rng.standard_normal(blocks, np.float32) * np.float32(0.02)
        drawn = numbers.view(np.uint8) if kind == "F32" else (numbers.view(np.uint32) >> 16).astype(np.uint16)
        drawn = drawn.view(np.uint8)
    else:
        drawn = rng.integers(0, 256, (blocks, block_bytes), np.uint8)
        drawn[:, :2] = np.frombuffer(np.float16(SCALE).tobytes(), np.uint8)
    return np.resize(drawn.reshape(-1), num_bytes)


class LlamaCpp:
    """llama.cpp's server in this process, by the wheel `xllamacpp`."""

    def __init__(self, path: Path, context: int, threads: int):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = -(-context // CONTEXT_STEP) * CONTEXT_STEP
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.cache_prompt = False
        params.cache_ram_mib = 0
        params.n_gpu_layers = 0
        params.verbosity = -1
        self._server = xllamacpp.Server(params)

    def generate(self, ids: list[int]) -> Iterator[Any]:
        """Yields after each token."""
        tokens: SimpleQueue[Any] = SimpleQueue()
        ended = object()
        is_closed = False

        def take(piece: Any) -> bool:
            tokens.put(piece)
            return is_closed

        request = {"prompt": ids, "n_predict": 4096, "stream": True, "temperature": 0, "ignore_eos": True}
        request |= {"cache_prompt": False, "return_tokens": True}

        def run() -> None:
            self._server.handle_completions(request, take)
            tokens.put(ended)

        worker = Thread(target=run, daemon=True)
        worker.start()
        try:
            while (piece := tokens.get()) is not ended:
                yield piece
        finally:
            is_closed = True
            worker.join()

"""Small random models as Qwen3-Embedding and Qwen3-Reranker are published, and texts for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, published_tensors, save_shards
from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder
from tokenizers.processors import TemplateProcessing

INSTRUCTION = "Retrieve what answers the question"
PIECES = [
    "a",
    "Wort ",
    "日本語",
    "привет ",
    "مرحبا ",
    "\n",
    "🙂",
    "e\u0301 ",
    "42",
    "  ",
    "नमस्ते",
    "<|im_end|",
    ", ",
]


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 0 to 60 pieces of many languages; spellings of special tokens are never whole."""
    random = np.random.default_rng(seed)
    lengths = [0, 1, 60, *random.integers(0, 60, count)][:count]
    return ["".join(random.choice(PIECES, length)) for length in lengths]


def write_embedding_model(folder: Path, tied: bool = False) -> Path:
    """Tensors without `model.` in front, no output head; the tokenizer ends texts with `<|endoftext|>`."""
    raw = DENSE | {"tie_word_embeddings": tied}
    _write_files(folder, raw, [])
    tensors = published_tensors(raw)
    bare = {name.removeprefix("model."): value for name, value in tensors.items() if "lm_head" not in name}
    save_shards(folder, bare)
    return folder


def write_reranker(folder: Path, kind: str = "dense") -> Path:
    """A model with an output head, whose tokenizer knows `yes` and `no`."""
    raw = MOE if kind == "moe" else DENSE
    _write_files(folder, raw, ["yes", "no"])
    tensors = published_tensors(raw)
    save_shards(folder, {name: value * 0.7 for name, value in tensors.items()})
    return folder


def _write_files(folder: Path, raw: dict[str, object], words: list[str]) -> None:
    write_byte_tokenizer(folder)
    encoder = Encoder.from_file(str(folder / "tokenizer.json"))
    encoder.add_tokens([AddedToken(word, normalized=False) for word in words])
    if not words:
        end = ("<|endoftext|>", encoder.token_to_id("<|endoftext|>"))
        encoder.post_processor = TemplateProcessing(single="$A <|endoftext|>", special_tokens=[end])
    encoder.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps(raw | {"max_position_embeddings": 32768}))

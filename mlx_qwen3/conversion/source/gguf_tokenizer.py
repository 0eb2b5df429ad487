"""Writes the tokenizer of a GGUF file as Qwen publishes it: tokenizer.json, its config, the chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer as Encoder

from mlx_qwen3.conversion.source.gguf_file import GgufFile
from mlx_qwen3.errors import TokenizerError, one_line

# tokenizer.ggml.pre: llama.cpp's names for splitting text into words as Qwen2 and later models do.
PRE_TOKENIZERS = ("qwen2", "deepseek-r1-qwen", None)
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
END_OF_TEXT = "<|endoftext|>"

Fields = Mapping[str, Any]


def tokenizer_files(file: GgufFile, context_length: int) -> dict[str, str]:
    """File name -> content of the files that tokenizing and chatting need.

    Raises TokenizerError for a tokenizer that is not of Qwen's type, or is broken.
    """
    fields = file.fields
    _check_type(file)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    added = {id_: text for id_, text in enumerate(tokens) if types[id_] in (CONTROL, USER_DEFINED)}
    content = json.dumps(_tokenizer(fields, added), ensure_ascii=False)
    _check(file, content, added)
    files = {
        "tokenizer.json": content,
        "tokenizer_config.json": _json(_tokenizer_config(fields, added, context_length)),
        "generation_config.json": _json(_generation_config(fields, added)),
    }
    template = fields.get("tokenizer.chat_template")
    return files | ({"chat_template.jinja": template} if isinstance(template, str) else {})


def _check_type(file: GgufFile) -> None:
    fields = file.fields
    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if model != "gpt2" or not isinstance(pre, str | None) or pre not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"{file.path} has a tokenizer of type {one_line(f'{model}/{pre}', 60)}, Qwen3's is gpt2/qwen2; "
            "get another file"
        )
    parts = [fields.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges")]
    kinds = (str, int, str)
    is_complete = all(
        isinstance(part, list) and all(isinstance(value, kind) for value in part)
        for part, kind in zip(parts, kinds, strict=True)
    )
    if not is_complete or len(fields["tokenizer.ggml.tokens"]) != len(fields["tokenizer.ggml.token_type"]):
        raise TokenizerError(
            f"{file.path} has no complete tokenizer (tokens, their types, merges); get another file"
        )


def _tokenizer(fields: Fields, added: Mapping[int, str]) -> dict[str, Any]:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    words = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(id_, text, types[id_] == CONTROL) for id_, text in added.items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            # Without the unused tokens, which pad the vocabulary to the rows of the embedding.
            "vocab": {text: id_ for id_, text in enumerate(tokens) if types[id_] in (NORMAL, UNKNOWN)},
            "merges": [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _added(id_: int, text: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id_, "content": text, **flags, "special": special}


def _check(file: GgufFile, content: str, added: Mapping[int, str]) -> None:
    """Check that the tokenizers library reads `content`, and numbers added tokens as the file does."""
    try:
        encoder = Encoder.from_str(content)
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{file.path} has a broken tokenizer ({error}); get another file") from error
    for id_, text in added.items():
        if encoder.token_to_id(text) != id_:
            raise TokenizerError(f"{file.path} has a broken tokenizer: {text} is not token {id_}")


def _tokenizer_config(fields: Fields, added: Mapping[int, str], context_length: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": context_length,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": added.get(_id(fields, "eos")),
        "pad_token": added.get(_id(fields, "padding")),
        "unk_token": None,
    }


def _generation_config(fields: Fields, added: Mapping[int, str]) -> dict[str, Any]:
    ids = [_id(fields, name) for name in ("eos", "eot")]
    ids += [id_ for id_, text in added.items() if text == END_OF_TEXT]
    config: dict[str, Any] = {"eos_token_id": list(dict.fromkeys(id_ for id_ in ids if id_ in added))}
    if (pad := _id(fields, "padding")) in added:
        config["pad_token_id"] = pad
    return config


def _id(fields: Fields, name: str) -> int:
    """The id of a special token; -1, which is none, if the file has none."""
    id_ = fields.get(f"tokenizer.ggml.{name}_token_id")
    return id_ if isinstance(id_, int) else -1


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

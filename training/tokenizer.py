"""A byte-level BPE of 2,022 entries with Qwen3's rules: NFC, its pre-tokenizer, every digit its own token.

The 26 added tokens of Qwen3 follow the base entries, in its order and with its `special` flags.
"""

import json
import random
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from training.data import BUDGET_CLOSING, load_template, render, sample_conversation

VOCABULARY_SIZE = 2048
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
PLAIN_TOKENS = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]


def control_tokens() -> list[AddedToken]:
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    return special + [AddedToken(token, special=False, normalized=False) for token in PLAIN_TOKENS]


def corpus(seed: int, conversations: int) -> list[str]:
    """Distinct texts of the training mix, so that a rare phrase counts as much as a frequent one."""
    rng = random.Random(seed)
    template = load_template()
    texts = {BUDGET_CLOSING}
    for _ in range(conversations):
        for piece in render(rng, template, sample_conversation(rng)):
            texts.update(
                part for part in piece.text.split("<|im_end|>") if "# Tools" not in part or rng.random() < 0.2
            )
    pieces = sorted(texts)
    for token in SPECIAL_TOKENS + PLAIN_TOKENS:
        pieces = [text.replace(token, "\n") for text in pieces]
    return pieces


def train_tokenizer(seed: int = 0, conversations: int = 12000) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    base_size = VOCABULARY_SIZE - len(SPECIAL_TOKENS) - len(PLAIN_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=base_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(seed, conversations), trainer)
    tokenizer.add_tokens(control_tokens())
    return tokenizer


def tokenizer_config(tokenizer: Tokenizer) -> dict:
    """tokenizer_config.json in the form Qwen3 publishes."""
    added = {
        str(tokenizer.token_to_id(token.content)): {
            "content": token.content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token.special,
        }
        for token in control_tokens()
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL_TOKENS[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def generation_config(tokenizer: Tokenizer) -> dict:
    """generation_config.json: where a turn ends, and Qwen3's sampling preset for thinking."""
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    return {"bos_token_id": pad, "eos_token_id": [end, pad], "pad_token_id": pad, **sampling}


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json, and the two small files that go with it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    configs = {
        "tokenizer_config.json": tokenizer_config(tokenizer),
        "generation_config.json": generation_config(tokenizer),
    }
    for name, config in configs.items():
        (folder / name).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")

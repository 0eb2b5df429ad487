"""Loads the encoder of a checkpoint, and reads which of its tokens are special and which end a turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Encoder

from mlx_qwen3.errors import TokenizerError, one_line
from mlx_qwen3.files import read_json_object

# An added token that is a word, or a few, belongs to the text: a fine-tune taught the model its meaning.
# Any other spelling, such as `<think>`, structures the prompt, even where the file does not call it special.
_WORDS = re.compile(r"[\w\s'’-]*\w[\w\s'’-]*")


# Other parts can make the library panic, which prints a trace and is no Exception.
_TYPES = re.compile(r'"type"\s*:\s*"([^"]*)"')
_KNOWN_TYPES = {"BPE", "ByteLevel", "Digits", "NFC", "NFD", "NFKC", "NFKD", "Sequence", "Split"}
_KNOWN_TYPES |= {"TemplateProcessing"}


def load_encoder(file: Path) -> Encoder:
    if not file.is_file():
        raise TokenizerError(f"{file} is missing: download the checkpoint again, with its tokenizer files")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if unknown := sorted(set(_TYPES.findall(text)) - _KNOWN_TYPES):
            raise TokenizerError(
                f"{file} is not a byte-level tokenizer like Qwen3's, it has a part of type "
                f"{one_line(unknown[0], 40)!r}: use the tokenizer that belongs to the model"
            )
        encoder = Encoder.from_str(text)
    except (KeyboardInterrupt, SystemExit, TokenizerError):
        raise
    except BaseException as error:  # the library raises no narrower type, and its panic is no Exception
        raise TokenizerError(f"{file} is broken ({one_line(error, 100)}): download it again") from error
    if not isinstance(encoder.decoder, decoders.ByteLevel):
        raise TokenizerError(
            f"{file} is not a byte-level tokenizer: use a Qwen3 checkpoint, they all have one"
        )
    return encoder


def read_optional_json(file: Path) -> dict[str, Any]:
    return read_json_object(file, TokenizerError, "download it again") if file.exists() else {}


def make_added_tokens_special(encoder: Encoder) -> Mapping[str, int]:
    """Makes every added token special but added words, and returns spelling -> id.

    `encoder` then encodes their spellings as text. Truncation and padding are switched off.
    """
    added = encoder.get_added_tokens_decoder().values()
    words = {token.content for token in added if not token.special and _WORDS.fullmatch(token.content)}
    spellings = [token.content for token in added if token.content not in words]
    encoder.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in spellings])
    encoder.encode_special_tokens = True
    encoder.no_truncation()
    encoder.no_padding()
    ids = {token.content: id_ for id_, token in encoder.get_added_tokens_decoder().items()}
    return MappingProxyType({text: id_ for text, id_ in ids.items() if text not in words})


def eos_token_ids(encoder: Encoder, named: Sequence[Any], spellings: Sequence[str | None]) -> tuple[int, ...]:
    """The ids that end a turn; each once, and only if it has a token.

    named: `eos_token_id` of the configs, an id or a list of ids each. spellings: further tokens.
    """
    candidates = [id_ for item in named for id_ in (item if isinstance(item, list) else [item])]
    candidates += [encoder.token_to_id(text) for text in spellings if text is not None]
    return tuple(dict.fromkeys(id_ for id_ in candidates if isinstance(id_, int) and _exists(encoder, id_)))


def _exists(encoder: Encoder, token_id: int) -> bool:
    return 0 <= token_id < 2**32 and encoder.id_to_token(token_id) is not None


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the like; each is a string or an object with `content`."""
    tokens = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        entry = config.get(name)
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str):
            tokens[name] = text
    return tokens

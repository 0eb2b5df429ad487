"""Text <-> token ids, over the `tokenizers` library.

Text is plain text: `encode` never makes a control token of it unless it is asked to, and a prompt made
of messages holds only the control tokens that the chat template wrote (see guard.py). Decoding goes
through bytes: a token's text, spelled in GPT-2's byte alphabet, is turned into the bytes it stands for.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Encoder

from mlx_qwen3.errors import TemplateError, TokenizerError
from mlx_qwen3.tokenizer.chat_template import Template, find_template
from mlx_qwen3.tokenizer.messages import Message
from mlx_qwen3.tokenizer.special_tokens import Guard, Piece


class Tokenizer:
    """A byte-level BPE tokenizer with its control tokens, stop ids and chat template.

    vocab_size: base and added tokens; a checkpoint's embedding may have more rows.
    control_tokens: every added token, spelling -> id.
    eos_token_ids: ids that end a turn, the usual one first.
    """

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer whose files are in `folder`. Raises TokenizerError."""
        encoder = _load_encoder(folder / "tokenizer.json")
        config = _read_json(folder / "tokenizer_config.json")
        generation_config = _read_json(folder / "generation_config.json")
        return cls(encoder, config, generation_config, lambda: find_template(folder, config))

    def __init__(
        self,
        encoder: Encoder,
        config: Mapping[str, Any],
        generation_config: Mapping[str, Any],
        find_template: Callable[[], str],
    ) -> None:
        """Use `load_tokenizer`. Takes `encoder` over; `find_template` is asked when a template is needed."""
        self.control_tokens = _own_added_tokens(encoder)
        self.vocab_size = encoder.get_vocab_size()
        self.eos_token_ids = _eos_token_ids(encoder, config, generation_config)
        self._encoder = encoder
        self._guard = Guard(self.control_tokens)
        self._control_ids = frozenset(self.control_tokens.values())
        self._bytes: dict[int, bytes] = {}
        self._named_tokens = _named_tokens(config)
        self._find_template = find_template

    def encode(
        self, text: str, *, control_tokens: bool = False, add_special_tokens: bool = False
    ) -> list[int]:
        """The ids of `text`, in which a control token's spelling is text like any other.

        control_tokens: recognise them, for prompts written by hand; never for text of strangers.
        add_special_tokens: what the tokenizer itself puts around a text; Qwen3's puts nothing.
        Text is NFC-normalised by Qwen3's tokenizer; half a surrogate pair becomes U+FFFD.
        """
        if control_tokens:
            return self._encode_pieces(self._guard.split(text))
        return self._encoder.encode(_scalars(text), add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Iterable[int], skip_control_tokens: bool = False) -> str:
        """The text of `ids`. Bytes that are not UTF-8 become U+FFFD, ids without a token become nothing."""
        token_bytes = self._content_bytes if skip_control_tokens else self._token_bytes
        return b"".join(map(token_bytes, ids)).decode("utf-8", "replace")

    def stream(self, skip_control_tokens: bool = False) -> TextStream:
        """A new decoder for ids that come one at a time."""
        return TextStream(self._content_bytes if skip_control_tokens else self._token_bytes)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """The ids of the prompt for `messages` and the JSON schemas `tools`.

        Whatever the messages and tools say, control tokens are only where the template writes them.
        Raises MessageError or TemplateError, see `Template.pieces`.
        """
        return self._encode_pieces(
            self.template.pieces(messages, tools, enable_thinking, add_generation_prompt)
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
    ) -> str:
        """The same prompt as text, for people: it does not tell control tokens from their spellings."""
        return self.template.render(messages, tools, enable_thinking, add_generation_prompt)

    @cached_property
    def template(self) -> Template:
        """The checkpoint's chat template. Raises TemplateError when there is none."""
        return Template(self._find_template(), self.control_tokens, self._named_tokens)

    @property
    def think_start_id(self) -> int | None:
        """The id of `<think>`; None where the checkpoint has no such token, as for those below."""
        return self.control_tokens.get("<think>")

    @property
    def think_end_id(self) -> int | None:
        """The id of `</think>`."""
        return self.control_tokens.get("</think>")

    @property
    def tool_call_start_id(self) -> int | None:
        """The id of `<tool_call>`."""
        return self.control_tokens.get("<tool_call>")

    @property
    def tool_call_end_id(self) -> int | None:
        """The id of `</tool_call>`."""
        return self.control_tokens.get("</tool_call>")

    def think_block(self, prompt_ids: Sequence[int]) -> Literal["open", "closed"] | None:
        """State of the last think block in the turn that a prompt ends with; None if it has no block.

        Templates of always-thinking models leave the block open. With `enable_thinking=False`, templates
        of hybrid models write an empty, closed one.
        """
        for token_id in reversed(prompt_ids):
            if token_id == self.think_start_id:
                return "open"
            if token_id == self.think_end_id:
                return "closed"
            if token_id == self.control_tokens.get("<|im_start|>"):
                break
        return None

    # What mlx-lm asks of a tokenizer, so that `mlx_lm.stream_generate(model, tokenizer, ids)` takes this one.

    @property
    def eos_token_id(self) -> int | None:
        """The usual one of `eos_token_ids`."""
        return next(iter(self.eos_token_ids), None)

    @property
    def bos_token(self) -> str | None:
        """The token that starts every text; Qwen3 has none."""
        return self._named_tokens.get("bos_token")

    @property
    def chat_template(self) -> str | None:
        """The chat template's source."""
        try:
            return self.template.source
        except TemplateError:
            return None

    def get_vocab(self) -> dict[str, int]:
        """Every token as the vocabulary spells it -> id. A new dict of `vocab_size` entries."""
        return self._encoder.get_vocab()

    def all_bytes(self) -> list[bytes]:
        """The bytes each id stands for, `vocab_size` of them; of a control token, its spelling."""
        tokens = [b""] * self.vocab_size
        for token, token_id in self.get_vocab().items():
            tokens[token_id] = _spelled_bytes(token)
        return tokens

    def _encode_pieces(self, pieces: Iterable[Piece]) -> list[int]:
        ids: list[int] = []
        for text, is_control in pieces:
            ids += [self.control_tokens[text]] if is_control else self.encode(text)
        return ids

    def _token_bytes(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            token = self._encoder.id_to_token(token_id)
            known = self._bytes[token_id] = b"" if token is None else _spelled_bytes(token)
        return known

    def _content_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._control_ids else self._token_bytes(token_id)


class TextStream:
    """Decodes ids one at a time and never gives out a part of a character.

    What `push` and `finish` return, put together, is `Tokenizer.decode` of all ids.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes, often none."""
        return self._decoder.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """What is left of a character that never became whole: U+FFFD, or nothing. Starts afresh."""
        return self._decoder.decode(b"", final=True)


def _load_encoder(file: Path) -> Encoder:
    if not file.is_file():
        raise TokenizerError(f"{file} is missing: download the checkpoint again, with its tokenizer files")
    try:
        encoder = Encoder.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{file} is broken ({error}): download it again") from error
    if not isinstance(encoder.decoder, decoders.ByteLevel):
        raise TokenizerError(
            f"{file} is not a byte-level tokenizer, as every Qwen3 checkpoint has: use one of those"
        )
    return encoder


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} is broken ({error}): download it again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{file} is broken (not a JSON object): download it again")
    return value


def _own_added_tokens(encoder: Encoder) -> Mapping[str, int]:
    """Makes `encoder` read every added token as plain text, without cutting or padding; their ids."""
    spellings = [token.content for token in encoder.get_added_tokens_decoder().values()]
    encoder.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in spellings])
    encoder.encode_special_tokens = True
    encoder.no_truncation()
    encoder.no_padding()
    return MappingProxyType({token.content: id_ for id_, token in encoder.get_added_tokens_decoder().items()})


def _eos_token_ids(
    encoder: Encoder, config: Mapping[str, Any], generation_config: Mapping[str, Any]
) -> tuple[int, ...]:
    """Ids named by the configs, then `<|endoftext|>`; each once, and only those that have a token."""
    named = generation_config.get("eos_token_id")
    candidates: list[Any] = named if isinstance(named, list) else [named]
    spellings = (_named_tokens(config).get("eos_token"), "<|endoftext|>")
    candidates = candidates + [encoder.token_to_id(text) for text in spellings if text is not None]
    return tuple(dict.fromkeys(id_ for id_ in candidates if isinstance(id_, int) and _exists(encoder, id_)))


def _exists(encoder: Encoder, token_id: int) -> bool:
    return 0 <= token_id < 2**32 and encoder.id_to_token(token_id) is not None


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the like; each is a string or an object with `content`."""
    tokens = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        entry = config.get(name)
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _spelled_bytes(token: str) -> bytes:
    """The bytes a token stands for; a token with characters outside the byte alphabet stands for itself."""
    try:
        return bytes(_BYTES[char] for char in token)
    except KeyError:
        return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are their own character, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _scalars(text: str) -> str:
    """`text` without halves of surrogate pairs, which have no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

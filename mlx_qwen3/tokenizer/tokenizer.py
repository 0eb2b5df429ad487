"""Text <-> token ids, with the `tokenizers` library.

`encode` treats text as plain text: the spelling of a special token does not become that token unless the
caller asks for it. A prompt made of messages holds only the special tokens that the chat template wrote
(see special_tokens.py). Decoding goes through bytes: the vocabulary spells tokens in GPT-2's byte alphabet.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Encoder

from mlx_qwen3.errors import MessageError, TemplateError, TokenizerError
from mlx_qwen3.files import read_json_object
from mlx_qwen3.tokenizer.chat_template import ChatTemplate, find_template
from mlx_qwen3.tokenizer.messages import Message
from mlx_qwen3.tokenizer.special_tokens import PromptPiece, SpecialTokenGuard


class Tokenizer:
    """A byte-level BPE tokenizer with its special tokens, stop ids and chat template.

    Attributes:
        vocab_size: The number of base and added tokens; the embedding of a checkpoint may have more rows.
        control_tokens: Every added token, spelling -> id. All of them are special tokens here.
        eos_token_ids: The ids that end a turn, the usual one first.
        generation_config: The content of generation_config.json; empty if there is no such file.
    """

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Load the tokenizer from the files in `folder`.

        Args:
            folder: Holds tokenizer.json and, if the checkpoint has them, tokenizer_config.json,
                generation_config.json and chat_template.jinja.

        Raises:
            TokenizerError: tokenizer.json is missing, or one of the JSON files cannot be used.
        """
        encoder = _load_encoder(folder / "tokenizer.json")
        config = _read_optional_json(folder / "tokenizer_config.json")
        generation_config = _read_optional_json(folder / "generation_config.json")
        return cls(encoder, config, generation_config, lambda: find_template(folder, config))

    def __init__(
        self,
        encoder: Encoder,
        config: Mapping[str, Any],
        generation_config: Mapping[str, Any],
        find_template: Callable[[], str],
    ) -> None:
        """Use `load_tokenizer`. Changes `encoder`. Calls `find_template` on first use of the template."""
        self.control_tokens = _make_added_tokens_special(encoder)
        self.vocab_size = encoder.get_vocab_size()
        self.generation_config = generation_config
        self.eos_token_ids = _eos_token_ids(encoder, config, generation_config)
        self._encoder = encoder
        self._guard = SpecialTokenGuard(self.control_tokens)
        self._bytes: dict[int, bytes] = {}
        self._named_tokens = _named_tokens(config)
        self._find_template = find_template

    def encode(
        self, text: str, *, control_tokens: bool = False, add_special_tokens: bool = False
    ) -> list[int]:
        """The ids of `text`. The spelling of a special token is text, unless `control_tokens` is set.

        Qwen3's tokenizer normalizes text to NFC. Half a surrogate pair becomes U+FFFD.

        Args:
            text: Any text.
            control_tokens: Read spellings of special tokens as those tokens. For prompts written by hand;
                never for untrusted text.
            add_special_tokens: Add what the tokenizer itself puts around a text. Qwen3's adds nothing.

        Returns:
            The token ids.

        Raises:
            TokenizerError: `text` is not a str.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"text must be a str, not {type(text).__name__}")
        if control_tokens:
            return self._encode_pieces(self._guard.split(text))
        return self._encoder.encode(_replace_surrogates(text), add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens as their spelling.

        Args:
            ids: Token ids. An id that has no token adds nothing.

        Returns:
            The text. Bytes that are not UTF-8 become U+FFFD.

        Raises:
            TokenizerError: `ids` are not integers.
        """
        try:
            return b"".join(map(self._token_bytes, ids)).decode("utf-8", "replace")
        except TypeError as error:
            raise TokenizerError(f"ids must be integers: {error}") from None

    def stream(self) -> TextStream:
        """A new decoder for ids that come one at a time."""
        return TextStream(self._token_bytes)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """The prompt for a conversation, with the chat template of the checkpoint.

        The prompt holds special tokens only where the template writes them, whatever the messages and tools
        say. `messages` and `tools` are not changed.

        Args:
            messages: Dicts with `role` and `content`, see `mlx_qwen3.tokenizer.messages`.
            tools: JSON schemas of the tools offered.
            enable_thinking: Let a hybrid model think. Other models ignore it.
            add_generation_prompt: End with the header of the assistant's next message.
            continue_final_message: End inside the last message, which must be the assistant's, so that
                the model continues it. There is no generation prompt then.

        Returns:
            The token ids of the prompt.

        Raises:
            MessageError: The template cannot take this conversation.
            TemplateError: There is no template, or it does not parse, fails, reaches outside its sandbox
                or does not end.
        """
        has_header = add_generation_prompt and not continue_final_message
        pieces = self.template.render(messages, tools, enable_thinking, has_header)
        if continue_final_message:
            if messages[-1]["role"] != "assistant":
                raise MessageError("only a message of the assistant can be continued")
            # Only the template writes special tokens, so the last one that ends a turn ends this message.
            ends = [index for index, piece in enumerate(pieces) if self._ends_turn(piece)]
            pieces = pieces[: ends[-1]] if ends else pieces
        return self._encode_pieces(pieces)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template of the checkpoint. Raises TemplateError if there is none."""
        return ChatTemplate(self._find_template(), self.control_tokens, self._named_tokens)

    @property
    def think_start_id(self) -> int | None:
        """The id of `<think>`; None if the checkpoint has no such token, as for the three ids below."""
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

    # The protocol of mlx-lm, so that `mlx_lm.stream_generate(model, tokenizer, ids)` works.

    @property
    def eos_token_id(self) -> int | None:
        """The first of `eos_token_ids`; None if there is none."""
        return next(iter(self.eos_token_ids), None)

    @property
    def bos_token(self) -> str | None:
        """The token that begins every text; Qwen3 has none."""
        return self._named_tokens.get("bos_token")

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template; None if there is none."""
        try:
            return self.template.source
        except TemplateError:
            return None

    def get_vocab(self) -> dict[str, int]:
        """A new dict of all tokens, as the vocabulary spells them, -> id."""
        return self._encoder.get_vocab()

    def all_bytes(self) -> list[bytes]:
        """The bytes of each token, by id; for a special token, its spelling."""
        tokens = [b""] * self.vocab_size
        for token, token_id in self.get_vocab().items():
            tokens[token_id] = _spelled_bytes(token)
        return tokens

    def _ends_turn(self, piece: PromptPiece) -> bool:
        return piece.is_special and self.control_tokens[piece.text] in self.eos_token_ids

    def _encode_pieces(self, pieces: Iterable[PromptPiece]) -> list[int]:
        ids: list[int] = []
        for text, is_special in pieces:
            ids += [self.control_tokens[text]] if is_special else self.encode(text)
        return ids

    def _token_bytes(self, token_id: int) -> bytes:
        token_bytes = self._bytes.get(token_id)
        if token_bytes is None:
            token = self._encoder.id_to_token(token_id)
            token_bytes = self._bytes[token_id] = b"" if token is None else _spelled_bytes(token)
        return token_bytes


class TextStream:
    """Decodes ids one at a time. It returns only complete characters.

    The texts that `push` and `finish` return, joined, are `Tokenizer.decode` of all ids.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes; often none."""
        return self._decoder.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """U+FFFD if the last character is incomplete, else nothing. The stream can be used again."""
        return self._decoder.decode(b"", final=True)


def _load_encoder(file: Path) -> Encoder:
    if not file.is_file():
        raise TokenizerError(f"{file} is missing: download the checkpoint again, with its tokenizer files")
    try:
        encoder = Encoder.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower type
        raise TokenizerError(f"{file} is broken ({error}): download it again") from error
    if not isinstance(encoder.decoder, decoders.ByteLevel):
        raise TokenizerError(
            f"{file} is not a byte-level tokenizer: use a Qwen3 checkpoint, they all have one"
        )
    return encoder


def _read_optional_json(file: Path) -> dict[str, Any]:
    return read_json_object(file, TokenizerError, "download it again") if file.exists() else {}


def _make_added_tokens_special(encoder: Encoder) -> Mapping[str, int]:
    """Makes every added token special, and returns spelling -> id.

    `encoder` then encodes their spellings as text. Truncation and padding are switched off.
    """
    spellings = [token.content for token in encoder.get_added_tokens_decoder().values()]
    encoder.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in spellings])
    encoder.encode_special_tokens = True
    encoder.no_truncation()
    encoder.no_padding()
    return MappingProxyType({token.content: id_ for id_, token in encoder.get_added_tokens_decoder().items()})


def _eos_token_ids(
    encoder: Encoder, config: Mapping[str, Any], generation_config: Mapping[str, Any]
) -> tuple[int, ...]:
    """The ids that the configs name, then `<|endoftext|>`; each once, and only if it has a token."""
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
    """The bytes of a token; one with characters outside the byte alphabet is its own text."""
    try:
        return bytes(_BYTES[char] for char in token)
    except KeyError:
        return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's byte alphabet: printable bytes are their own character, the others start at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _replace_surrogates(text: str) -> str:
    """`text` with U+FFFD for halves of surrogate pairs, which have no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

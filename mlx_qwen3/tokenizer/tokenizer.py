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
from typing import Any, Literal, overload

from tokenizers import Tokenizer as Encoder

from mlx_qwen3.errors import MessageError, Qwen3Error, TemplateError, TokenizerError
from mlx_qwen3.tokenizer.chat_template import ChatTemplate, find_template
from mlx_qwen3.tokenizer.encoder import (
    eos_token_ids,
    load_encoder,
    make_added_tokens_special,
    named_tokens,
    read_optional_json,
)
from mlx_qwen3.tokenizer.messages import Message, without_surrogates
from mlx_qwen3.tokenizer.special_tokens import PromptPiece, SpecialTokenGuard


class Tokenizer:
    """A byte-level BPE tokenizer with its special tokens, stop ids and chat template.

    Attributes:
        vocab_size: The number of base and added tokens; the embedding of a checkpoint may have more rows.
        control_tokens: The special tokens, spelling -> id: all added tokens but words that a fine-tune added.
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
        encoder = load_encoder(folder / "tokenizer.json")
        config = read_optional_json(folder / "tokenizer_config.json")
        generation_config = read_optional_json(folder / "generation_config.json")
        model_eos = read_optional_json(folder / "config.json").get("eos_token_id")
        return cls(encoder, config, generation_config, lambda: find_template(folder, config), model_eos)

    def __init__(
        self,
        encoder: Encoder,
        config: Mapping[str, Any],
        generation_config: Mapping[str, Any],
        find_template: Callable[[], str],
        model_eos: int | list[int] | None = None,
    ) -> None:
        """Use `load_tokenizer`. Changes `encoder`. Calls `find_template` on first use of the template.

        model_eos: `eos_token_id` of config.json.
        """
        self.control_tokens = make_added_tokens_special(encoder)
        self.vocab_size = encoder.get_vocab_size()
        self.generation_config = generation_config
        self._encoder = encoder
        self._guard = SpecialTokenGuard(self.control_tokens)
        self._bytes: dict[int, bytes] = {}
        self._named_tokens = named_tokens(config)
        self._named_eos = [generation_config.get("eos_token_id"), model_eos]
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
        return self._encoder.encode(without_surrogates(text), add_special_tokens=add_special_tokens).ids

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

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        *,
        tokenize: Literal[True] = True,
        return_dict: Literal[False] = False,
    ) -> list[int]: ...

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        *,
        tokenize: bool = True,
        return_dict: bool = False,
    ) -> list[int] | str | dict[str, list[int]]: ...

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        *,
        tokenize: bool = True,
        return_dict: bool = False,
    ) -> list[int] | str | dict[str, list[int]]:
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
            tokenize: Return ids. False returns the text of the prompt, special tokens as their spelling.
            return_dict: Return `{"input_ids": ids, "attention_mask": ones}`, as transformers does.

        Returns:
            The token ids of the prompt, or what `tokenize` and `return_dict` ask for.

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
        if not tokenize:
            return "".join(piece.text for piece in pieces)
        ids = self._encode_pieces(pieces)
        return {"input_ids": ids, "attention_mask": [1] * len(ids)} if return_dict else ids

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template of the checkpoint. Raises TemplateError if there is none."""
        return ChatTemplate(self._find_template(), self.control_tokens, self._named_tokens)

    @cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end a turn, the usual one first.

        They are those that the configs name, the token that the chat template writes after an answer, and
        `<|endoftext|>`.
        """
        try:
            answer_end = self.template.answer_end
        except Qwen3Error:  # without a template that works, the configs decide
            answer_end = None
        spellings = (self._named_tokens.get("eos_token"), answer_end, "<|endoftext|>")
        return eos_token_ids(self._encoder, self._named_eos, spellings)

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

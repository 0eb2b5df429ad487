"""Follows a grammar token by token, through llguidance.

A mask is packed, a bit a token, until it goes to the device: 19 kB for Qwen3's vocabulary.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from mlx_qwen3.errors import SchemaError
from mlx_qwen3.grammar.closed_schema import closed
from mlx_qwen3.grammar.json_completion import OUTSIDE, Endings, both, json_state

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from mlx_qwen3.tokenizer import Tokenizer

Bits = NDArray[np.uint8]

MOST_LOOK_AHEAD = 2000  # tokens
MOST_COMPILED = 32  # grammars kept for the next turn


def is_installed() -> bool:
    """Whether the extra `grammar` is there."""
    return find_spec("llguidance") is not None


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Why no grammar can be made of a JSON schema, in one line; empty if one can.

    Raises SchemaError if the extra `grammar` is missing.
    """
    if not is_installed():
        raise SchemaError("structured answers need llguidance: pip install 'mlx-qwen3[grammar]'")
    try:
        return _schema_problem(json.dumps(closed(schema)))
    except (RecursionError, TypeError, AttributeError, ValueError) as error:  # it may hold anything
        return f"not a JSON schema: {one_line(error)}"


@lru_cache(maxsize=256)
def _schema_problem(schema: str) -> str:
    from llguidance import LLMatcher

    return _problem(LLMatcher.grammar_from_json_schema(schema))


@lru_cache(maxsize=32)
def is_grammar(rules: str) -> bool:
    """Whether `rules` can be used."""
    from llguidance import LLMatcher

    return not _problem(LLMatcher.grammar_from_lark(rules))


def _problem(grammar: str) -> str:
    from llguidance import LLMatcher

    is_broken, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return one_line(messages[0]) if is_broken else ""


def one_line(error: object) -> str:
    """What a library says is wrong, as a part of one line."""
    return " ".join(str(error).split())


class Vocabulary:
    """A tokenizer as llguidance wants it. Takes about half a second to make; see `vocabulary`."""

    def __init__(self, tokenizer: Tokenizer):
        from llguidance import LLTokenizer

        self._compiled: dict[str, LLMatcher] = {}
        self.token_bytes = tokenizer.all_bytes()
        self.control_ids = frozenset(tokenizer.control_tokens.values())
        self.end_id = tokenizer.eos_token_ids[0]
        self.tokens: Any = LLTokenizer(
            _Wrapped(tokenizer, self),  # type: ignore[arg-type]  # what it reads of a TokenizerWrapper
            eos_token=[self.end_id],
            slices=LLTokenizer.json_slices(),
        )

    @cached_property
    def endings(self) -> Endings:
        """Which tokens end a JSON text soonest."""
        return Endings(self.token_bytes, self.control_ids, self.end_id)

    def matcher(self, rules: str) -> Matcher:
        """A matcher at the beginning of `rules`. Raises SchemaError if they are too much."""
        from llguidance import LLMatcher

        if rules not in self._compiled:
            matcher = LLMatcher(self.tokens, LLMatcher.grammar_from_lark(rules), log_level=0)
            if matcher.is_error():
                raise SchemaError(f"this schema cannot be used: {one_line(matcher.get_error())}")
            if len(self._compiled) >= MOST_COMPILED:
                self._compiled.clear()
            self._compiled[rules] = matcher
        return Matcher(self, self._compiled[rules].deep_copy())


class _Wrapped:
    """The attributes that llguidance reads of a tokenizer. Keeps none alive: Rust holds this."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary):
        self.eos_token_id = vocabulary.end_id
        self.tokens = vocabulary.token_bytes
        self.special_token_ids = sorted(vocabulary.control_ids)
        self._tokenizer = ref(tokenizer)

    def __call__(self, text: str | bytes) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None  # whoever asks for a mask has it
        return tokenizer.encode(text if isinstance(text, str) else text.decode())


_vocabularies: WeakKeyDictionary[Tokenizer, Future[Vocabulary]] = WeakKeyDictionary()
_lock = threading.Lock()


def vocabulary(tokenizer: Tokenizer) -> Future[Vocabulary]:
    """The tokenizer's vocabulary, made once, on a thread of its own while the prompt is read."""
    with _lock:
        if (future := _vocabularies.get(tokenizer)) is None:
            future = _vocabularies[tokenizer] = Future()
            threading.Thread(target=_make, args=(tokenizer, future), daemon=True).start()
    return future


def _make(tokenizer: Tokenizer, future: Future[Vocabulary]) -> None:
    try:
        future.set_result(Vocabulary(tokenizer))
    except Exception as error:  # noqa: BLE001  # whoever waits for it gets it
        future.set_exception(error)


class Matcher:
    """A grammar on its way through a text. Only tokens that `bits` allows may be accepted."""

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher, states: list[int] | None = None):
        self._vocabulary, self._matcher = vocabulary, matcher
        self._states = states or [OUTSIDE]  # of the JSON text after each token
        self._seen: set[bytes] = set()  # what might come next, in the value being ended

    def copy(self) -> Matcher:
        """One that goes its own way from here."""
        return Matcher(self._vocabulary, self._matcher.deep_copy(), [self._states[-1]])

    def bits(self) -> Bits:
        """The tokens that may come next, a bit each, the lowest first."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return bits

    def ending_bits(self) -> Bits:
        """Of those, the ones that lead to the end soonest."""
        bits, state, endings = self.bits(), self._states[-1], self._vocabulary.endings
        if both(bits, endings.ends[state]).any():
            self._seen.clear()
            return endings.choose(bits, state)
        return self._way_out(bits, state)

    def _way_out(self, bits: Bits, state: int) -> Bits:
        """Of `bits`, in a value that may not end here, what leads to where it may.

        Those after which it may end, as after the `0` of a multiple of ten; else those after which
        something may come that might not before in this value, such as the `@` of an address.
        """
        endings = self._vocabulary.endings
        self._seen.add(bits.tobytes())
        ends, leads = np.zeros_like(bits), np.zeros_like(bits)
        for token in ids(both(bits, endings.tries[state])):
            ahead = self._matcher.deep_copy()
            ahead.consume_token(token)
            following = ahead.compute_bitmask()
            there = endings.ends[json_state(state, self._vocabulary.token_bytes[token])]
            if both(np.frombuffer(following, np.uint8), there).any():
                ends[token // 8] |= 1 << token % 8
            elif following not in self._seen:
                leads[token // 8] |= 1 << token % 8
        return ends if ends.any() else leads if leads.any() else endings.choose(bits, state)

    def accept(self, token: int) -> None:
        """Go on by `token`."""
        self._matcher.consume_token(token)
        self._check()
        self._states.append(json_state(self._states[-1], self._vocabulary.token_bytes[token]))

    def rollback(self, count: int) -> None:
        """Go back by `count` tokens."""
        self._matcher.rollback(count)
        del self._states[len(self._states) - count :]

    def tokens_to_end(self) -> int:
        """About how many tokens the shortest way to the end takes; 0 if none was found."""
        ahead = self.copy()
        for count in range(1, MOST_LOOK_AHEAD):
            token = lowest(ahead.ending_bits())
            if token == self._vocabulary.end_id:
                return count
            ahead.accept(token)
        return 0

    def _check(self) -> None:
        if self._matcher.is_error():
            problem, *_ = self._matcher.get_error().split("<state>")
            raise SchemaError(f"the answer left its grammar: {one_line(problem)}")


def lowest(bits: Bits) -> int:
    """The first token of a mask."""
    byte = int(np.argmax(bits != 0))
    value = int(bits[byte])
    return 8 * byte + (value & -value).bit_length() - 1


def ids(bits: Bits) -> list[int]:
    """The tokens of a mask."""
    return [8 * int(byte) + bit for byte in np.flatnonzero(bits) for bit in range(8) if bits[byte] >> bit & 1]

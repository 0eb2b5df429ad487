"""Follows a grammar token by token with llguidance.

Masks stay packed, one bit a token, until they go to the device: 19 kB for Qwen3's vocabulary.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from mlx_qwen3.errors import SchemaError, install_command, one_line
from mlx_qwen3.grammar.compilable_schema import compilable, find_problem
from mlx_qwen3.grammar.json_completion import (
    ESCAPED,
    INSIDE,
    OUTSIDE,
    ClosingTokens,
    PackedMask,
    intersect,
    json_state,
)
from mlx_qwen3.grammar.pattern_examples import string_endings

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from mlx_qwen3.tokenizer import Tokenizer

ANY_ESCAPE = {OUTSIDE: b'"\\u4e00', INSIDE: b"\\u4e00", ESCAPED: b"u4e00"}  # of no control character
MAX_LOOKAHEAD = 2000  # tokens
MAX_PROBED = 24  # tokens of one value at which the way to its end is probed, 30 ms each
MAX_COMPILED = 32  # compiled grammars kept for later turns


def is_installed() -> bool:
    """Whether the extra `grammar` is installed."""
    return find_spec("llguidance") is not None


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Why a JSON schema cannot become a grammar, in one line that names the place; empty if it can.

    Raises SchemaError if the extra `grammar` is not installed.
    """
    if not is_installed():
        raise SchemaError(f"structured answers need llguidance: {install_command('grammar')}")
    try:
        return find_problem(schema, lambda part: _schema_problem(json.dumps(compilable(part))))
    except (RecursionError, TypeError, AttributeError, ValueError) as error:  # it may hold any value
        return f"not a JSON schema: {one_line(error)}"


@lru_cache(maxsize=256)
def _schema_problem(schema: str) -> str:
    from llguidance import LLMatcher

    return _grammar_problem(LLMatcher.grammar_from_json_schema(schema))


@lru_cache(maxsize=32)
def is_grammar(rules: str) -> bool:
    """Whether llguidance accepts `rules`."""
    from llguidance import LLMatcher

    return not _grammar_problem(LLMatcher.grammar_from_lark(rules))


def _grammar_problem(grammar: str) -> str:
    from llguidance import LLMatcher

    is_broken, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    if not is_broken:
        return ""
    if "coerce_one_of" in messages[0]:
        return "a value could match several choices of oneOf; use anyOf"
    return one_line(messages[0])


class GrammarCompiler:
    """Compiles grammars for one tokenizer. Takes about half a second to make; see `compiler_for`."""

    def __init__(self, tokenizer: Tokenizer):
        from llguidance import LLTokenizer

        self._compiled: dict[str, LLMatcher] = {}
        self.token_bytes = tokenizer.all_bytes()
        self.special_ids = frozenset(tokenizer.control_tokens.values())
        self.end_id = tokenizer.eos_token_ids[0]
        self._ll_tokenizer: Any = LLTokenizer(
            _TokenizerWrapper(tokenizer, self),  # type: ignore[arg-type]  # has the attributes that are read
            eos_token=[self.end_id],
            slices=LLTokenizer.json_slices(),
        )

    @cached_property
    def token_of(self) -> dict[bytes, int]:
        """The id of each token that is not special, by its bytes."""
        tokens = enumerate(self.token_bytes)
        return {text: id_ for id_, text in tokens if text and id_ not in self.special_ids}

    @cached_property
    def closing_tokens(self) -> ClosingTokens:
        """The tokens that close JSON values."""
        return ClosingTokens(self.token_bytes, self.special_ids, self.end_id)

    def matcher(self, rules: str) -> Matcher:
        """A matcher at the start of the grammar `rules`. Raises SchemaError if it is too large."""
        from llguidance import LLMatcher

        if rules not in self._compiled:
            matcher = LLMatcher(self._ll_tokenizer, LLMatcher.grammar_from_lark(rules), log_level=0)
            if matcher.is_error():
                raise SchemaError(f"this schema cannot be used: {one_line(matcher.get_error())}")
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            self._compiled[rules] = matcher
        return Matcher(self, self._compiled[rules].deep_copy(), string_endings(rules))


class _TokenizerWrapper:
    """The attributes of a tokenizer that llguidance reads.

    Rust holds this object, so it refers weakly to the tokenizer, which would otherwise never be freed.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, compiler: GrammarCompiler):
        self.eos_token_id = compiler.end_id
        self.tokens = compiler.token_bytes
        self.special_token_ids = sorted(compiler.special_ids)
        self._tokenizer = ref(tokenizer)

    def __call__(self, text: str | bytes) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None  # the caller of the matcher holds it
        return tokenizer.encode(text if isinstance(text, str) else text.decode())


_compilers: WeakKeyDictionary[Tokenizer, Future[GrammarCompiler]] = WeakKeyDictionary()
_lock = threading.Lock()


def compiler_for(tokenizer: Tokenizer) -> Future[GrammarCompiler]:
    """The compiler of `tokenizer`. It is made once, on its own thread, while the prompt is prefilled."""
    with _lock:
        if (future := _compilers.get(tokenizer)) is None:
            future = _compilers[tokenizer] = Future()
            threading.Thread(target=_make_compiler, args=(tokenizer, future), daemon=True).start()
    return future


def _make_compiler(tokenizer: Tokenizer, future: Future[GrammarCompiler]) -> None:
    try:
        future.set_result(GrammarCompiler(tokenizer))
    except Exception as error:  # noqa: BLE001  # `future.result()` raises it
        future.set_exception(error)


class Matcher:
    """A position in a grammar. Accept only tokens that `mask` allows."""

    def __init__(
        self,
        compiler: GrammarCompiler,
        matcher: LLMatcher,
        string_endings: tuple[bytes, ...] = (),
        states: list[int] | None = None,
    ):
        """string_endings: what may complete a string that must match a pattern."""
        self._compiler, self._matcher, self._string_endings = compiler, matcher, string_endings
        self._states = states or [OUTSIDE]  # the JSON state after each token
        self._probes = 0  # tokens of this value at which the way to its end was probed
        self._seen_masks: set[bytes] = set()  # what was allowed so far in the value that is to end

    def copy(self) -> Matcher:
        """An independent matcher at the same position."""
        return Matcher(self._compiler, self._matcher.deep_copy(), self._string_endings, [self._states[-1]])

    def mask(self) -> PackedMask:
        """The tokens that may come next."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return self._without_traps(mask)

    def _without_traps(self, mask: PackedMask) -> PackedMask:
        r"""`mask` without `\u` where only escapes of control characters could follow.

        llguidance has only those in strings that have a pattern: a model that means to write `\u00e9` would
        end with a tab. It can write the character itself.
        """
        state = self._states[-1]
        escapes = intersect(mask, self._compiler.closing_tokens.unicode_escapes[state])
        if not escapes.any() or self._validates(ANY_ESCAPE[state]):
            return mask
        others = mask & ~escapes
        return others if others.any() else mask

    def _validates(self, text: bytes) -> bool:
        """Whether `text` may come next."""
        ids = [self._compiler.token_of.get(bytes([byte])) for byte in text]
        tokens = [id_ for id_ in ids if id_ is not None]
        return len(tokens) < len(ids) or self.may_begin_with(tokens)

    def may_begin_with(self, tokens: Sequence[int]) -> bool:
        """Whether all of `tokens` may come next."""
        return self._matcher.validate_tokens(list(tokens)) == len(tokens)

    def closing_mask(self) -> PackedMask:
        """Of the tokens that may come next, those that lead to the end of the JSON soonest."""
        mask, state, closing = self.mask(), self._states[-1], self._compiler.closing_tokens
        if intersect(mask, closing.ending[state]).any():
            self._seen_masks.clear()
            self._probes = 0
            return closing.soonest(mask, state)
        ending = self._towards_string_end(mask) if state == INSIDE else None
        return self._towards_end(mask, state) if ending is None else ending

    def _towards_string_end(self, mask: PackedMask) -> PackedMask | None:
        """The token of `mask` that begins the shortest known ending of this string; None if none fits."""
        token_of = self._compiler.token_of
        for ending in self._string_endings:
            ids = [token_of.get(bytes([byte])) for byte in ending + b'"']
            tokens = [id_ for id_ in ids if id_ is not None]
            if len(tokens) < len(ids) or self._matcher.validate_tokens(tokens) < len(tokens):
                continue
            for length in range(len(ending), 0, -1):
                token = token_of.get(ending[:length])
                if token is not None and mask[token // 8] >> token % 8 & 1:
                    only = np.zeros_like(mask)
                    only[token // 8] = 1 << token % 8
                    return only
        return None

    def _towards_end(self, mask: PackedMask, state: int) -> PackedMask:
        """The tokens of `mask` that lead towards an end of a value that may not end here.

        First choice: tokens after which the value may end, such as the `0` of a multiple of ten. Second:
        tokens after which a token is allowed that was not allowed before in this value, such as the `@` of
        an address.
        """
        closing = self._compiler.closing_tokens
        if self._probes >= MAX_PROBED:
            return closing.soonest(mask, state)
        self._seen_masks.add(mask.tobytes())
        self._probes += 1
        before_end, before_new = np.zeros_like(mask), np.zeros_like(mask)
        for token in token_ids(intersect(mask, closing.probes[state])):
            ahead = self._matcher.deep_copy()
            ahead.consume_token(token)
            next_mask = ahead.compute_bitmask()
            ending = closing.ending[json_state(state, self._compiler.token_bytes[token])]
            if intersect(np.frombuffer(next_mask, np.uint8), ending).any():
                before_end[token // 8] |= 1 << token % 8
            elif next_mask not in self._seen_masks:
                before_new[token // 8] |= 1 << token % 8
        if before_end.any():
            return before_end
        return before_new if before_new.any() else closing.soonest(mask, state)

    def accept(self, token: int) -> None:
        """Advance by `token`."""
        self._matcher.consume_token(token)
        self._check()
        self._states.append(json_state(self._states[-1], self._compiler.token_bytes[token]))

    def rollback(self, count: int) -> None:
        """Go back by `count` tokens."""
        self._matcher.rollback(count)
        del self._states[len(self._states) - count :]

    def tokens_to_end(self) -> int:
        """About how many tokens the shortest way to the end takes; 0 if none was found."""
        ahead = self.copy()
        for count in range(1, MAX_LOOKAHEAD):
            token = lowest_token_id(ahead.closing_mask())
            if token == self._compiler.end_id:
                return count
            ahead.accept(token)
        return 0

    def _check(self) -> None:
        if self._matcher.is_error():
            problem, *_ = self._matcher.get_error().split("<state>")
            raise SchemaError(f"the answer left its grammar: {one_line(problem)}")


def lowest_token_id(mask: PackedMask) -> int:
    """The lowest token id in `mask`."""
    byte = int(np.argmax(mask != 0))
    value = int(mask[byte])
    return 8 * byte + (value & -value).bit_length() - 1


def token_ids(mask: PackedMask) -> list[int]:
    """The token ids in `mask`."""
    return [8 * int(byte) + bit for byte in np.flatnonzero(mask) for bit in range(8) if mask[byte] >> bit & 1]

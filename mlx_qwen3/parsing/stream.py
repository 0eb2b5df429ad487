"""The stream parser: text and special tokens in, events out. The package's docstring has the rules.

It works character by character, so the events do not depend on how the stream is cut into pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_qwen3.events import AnswerDelta, Event, ThinkingDelta, ToolCall, ToolCallDelta, ToolCallStart
from mlx_qwen3.parsing.call_reader import OfferedTools, ParsedCall, read_calls
from mlx_qwen3.parsing.call_scanner import (
    CLOSE,
    OPEN,
    CallScanner,
    JSONCallScanner,
    TagMeaning,
    XMLCallScanner,
)
from mlx_qwen3.parsing.sections import Section

THINK, THINK_END = "<think>", "</think>"
TAGS = (THINK, THINK_END, OPEN, CLOSE)


@dataclass(frozen=True, slots=True)
class _Symbol:
    """A character of text, or a tag: a special token, or its spelling if that counts (`is_spelled`)."""

    text: str
    is_tag: bool = False
    is_spelled: bool = False


@dataclass
class _Call:
    """The call being read.

    scanner: None until the first character of the body tells the format. opening: the opening tag and the
    whitespace after it. must_look_like_call: the opening tag was in the middle of a line.
    is_unwrapped: `<function=...>` without `<tool_call>`. after_tag: an ambiguous tag and what follows it.
    """

    index: int
    must_look_like_call: bool = False
    opening: list[_Symbol] = field(default_factory=list)
    scanner: CallScanner | None = None
    is_unwrapped: bool = False
    is_announced: bool = False
    after_tag: list[_Symbol] = field(default_factory=list)


class StreamParser:
    """Splits one turn into ThinkingDelta, AnswerDelta, ToolCallStart, ToolCallDelta and ToolCall.

    No input raises. Every ToolCall has a ToolCallStart before it.
    """

    def __init__(
        self,
        special_tokens: Collection[str] | None = None,
        thinking: bool = False,
        tool_format: Literal["json", "xml"] | str | None = "json",
        tool_schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """
        Args:
            special_tokens: The special tokens of the tokenizer. A tag that is one of them is only a tag
                if it comes as a token; any other tag is known by its spelling. None: all tags are tokens.
            thinking: The stream starts inside thinking, because the prompt opened it.
            tool_format: How the checkpoint writes calls; None if it cannot, or if no tools are offered.
            tool_schemas: The tools offered, name -> JSON schema of the parameters. The schemas give XML
                values their types. None: any name is accepted.
        """
        self._tools = OfferedTools(tool_schemas)
        self._has_tools = tool_format is not None
        self._spelled = [] if special_tokens is None else [tag for tag in TAGS if tag not in special_tokens]
        if tool_format == "xml":
            self._spelled += [f"<function={name}>" for name in tool_schemas or ()]
        self._tag_starts = frozenset(tag[:end] for tag in self._spelled for end in range(1, len(tag)))
        self._maybe_tag = ""
        self._queue: deque[_Symbol] = deque()
        self._text_closing_tags: dict[str, int] = {}  # closing tag -> how many of the next ones are text
        self._is_thinking = thinking
        self._section = Section()
        self._call: _Call | None = None
        self._completed_calls = 0
        self._has_output = False
        self._events: list[Event] = []

    def push_text(self, text: str) -> list[Event]:
        """Add the text of ordinary tokens."""
        if self._spelled or self._call is not None:
            for char in text:
                self._push_char(char)
        else:  # the usual case: nothing in it can be a tag
            self._add_text(text)
        return self._take_events()

    def push_special_token(self, spelling: str) -> list[Event]:
        """Add a special token."""
        self._release_maybe_tag()
        self._queue.append(_Symbol(spelling, is_tag=True))
        self._run()
        return self._take_events()

    def finish(self) -> list[Event]:
        """End the turn: give out what was held back, close an open call."""
        self._release_maybe_tag()
        while self._call is not None:
            self._end_of_turn(self._call)
            self._run()
        self._emit_text(self._section.trailing_newlines())
        self._section = Section()
        return self._take_events()

    # Spelled tags

    def _push_char(self, char: str) -> None:
        """Hold back what may become a tag; queue tags and other text."""
        self._maybe_tag += char
        while self._maybe_tag and self._maybe_tag not in self._tag_starts:
            if self._maybe_tag in self._spelled:
                self._queue.append(_Symbol(self._maybe_tag, is_tag=True, is_spelled=True))
                self._maybe_tag = ""
            else:
                self._queue.append(_Symbol(self._maybe_tag[0]))
                self._maybe_tag = self._maybe_tag[1:]
            self._run()

    def _release_maybe_tag(self) -> None:
        """What was held back is text."""
        self._queue.extend(map(_Symbol, self._maybe_tag))
        self._maybe_tag = ""
        self._run()

    def _run(self) -> None:
        while self._queue:
            symbol = self._queue.popleft()
            if self._call is not None:
                self._in_call(self._call, symbol)
            elif not symbol.is_tag:
                self._add_text(symbol.text)
            elif self._is_thinking:
                self._tag_in_thinking(symbol)
            else:
                self._tag_in_answer(symbol)

    # Thinking and answer

    def _add_text(self, text: str) -> None:
        self._emit_text("".join([self._section.add(char) for char in text]))

    def _emit_text(self, text: str) -> None:
        if text:
            self._has_output = True
            self._events.append(ThinkingDelta(text) if self._is_thinking else AnswerDelta(text))

    def _new_section(self, thinking: bool) -> None:
        self._section, self._is_thinking = Section(), thinking
        self._text_closing_tags.clear()

    def _tag_in_thinking(self, tag: _Symbol) -> None:
        code = self._section.code
        if tag.text == THINK_END and not (tag.is_spelled and code.in_span):
            self._new_section(thinking=False)
        elif tag.text == THINK and self._section.is_empty:
            return  # the prompt opened thinking, and the model opens it again
        elif tag.text in (OPEN, CLOSE) or code.in_code or tag.is_spelled:
            self._add_text(tag.text)

    def _tag_in_answer(self, tag: _Symbol) -> None:
        if self._section.code.in_code:
            self._add_text(tag.text)
        elif self._text_closing_tags.get(tag.text):
            self._text_closing_tags[tag.text] -= 1
            self._add_text(tag.text)
        elif tag.text == THINK:
            if tag.is_spelled and self._has_output:
                self._keep_as_text([tag])
            else:
                self._new_section(thinking=True)
        elif tag.text == OPEN or (tag.is_spelled and tag.text not in TAGS):
            self._open_call(tag)

    def _open_call(self, tag: _Symbol) -> None:
        at_line_start = self._section.code.at_line_start
        is_unwrapped = tag.text != OPEN
        if not self._has_tools or (is_unwrapped and not at_line_start):
            self._keep_as_text([tag])
            return
        self._call = _Call(self._completed_calls, not at_line_start, [tag], is_unwrapped=is_unwrapped)
        if is_unwrapped:
            self._queue.extendleft(map(_Symbol, reversed(tag.text)))

    def _keep_as_text(self, symbols: list[_Symbol]) -> None:
        """An opening tag and what follows it are text; so is the next tag that would close it."""
        closing = {OPEN: CLOSE, THINK: THINK_END}.get(symbols[0].text, "")
        self._text_closing_tags[closing] = self._text_closing_tags.get(closing, 0) + 1
        for symbol in symbols:
            self._add_text(symbol.text)

    # Calls

    def _in_call(self, call: _Call, symbol: _Symbol) -> None:
        if symbol.is_spelled and symbol.text not in TAGS:
            self._queue.extendleft(map(_Symbol, reversed(symbol.text)))
        elif call.scanner is None:
            self._begin_body(call, symbol)
        elif call.scanner.ambiguous_at is not None:
            self._after_ambiguous_tag(call, call.scanner, symbol)
        elif symbol.is_tag:
            self._tag_in_call(call, call.scanner, symbol)
        else:
            self._feed(call, call.scanner, symbol.text)

    def _begin_body(self, call: _Call, symbol: _Symbol) -> None:
        """The first character tells the format, or that the opening tag was text."""
        if not symbol.is_tag and symbol.text.isspace():
            call.opening.append(symbol)
        elif call.must_look_like_call and (symbol.is_tag or symbol.text not in "{[<"):
            self._call = None
            self._keep_as_text(call.opening)
            self._queue.appendleft(symbol)
        else:
            self._new_section(thinking=False)
            self._has_output = True
            call.scanner = XMLCallScanner() if symbol.text == "<" else JSONCallScanner()
            for whitespace in call.opening[1:]:
                call.scanner.feed(whitespace.text)
            self._queue.appendleft(symbol)

    def _feed(self, call: _Call, scanner: CallScanner, text: str) -> None:
        for char in text:
            scanner.feed(char)
        self._report(call, scanner)
        if scanner.is_complete and ((call.is_unwrapped and text == ">") or scanner.text.endswith(CLOSE)):
            self._close(call, scanner, is_closed=True)

    def _tag_in_call(self, call: _Call, scanner: CallScanner, tag: _Symbol) -> None:
        if tag.text not in (OPEN, CLOSE):
            if tag.is_spelled or scanner.classify(CLOSE) is not TagMeaning.END:
                self._feed(call, scanner, tag.text)
            return
        match scanner.classify(tag.text):
            case TagMeaning.END:
                self._end_by_tag(call, scanner, tag)
            case TagMeaning.TEXT:
                self._feed(call, scanner, tag.text)
            case TagMeaning.AMBIGUOUS:
                scanner.begin_ambiguous_tag()
                self._after_ambiguous_tag(call, scanner, tag)

    def _end_by_tag(self, call: _Call, scanner: CallScanner, tag: _Symbol) -> None:
        self._close(call, scanner, is_closed=tag.text == CLOSE)
        if tag.text == OPEN:
            self._queue.appendleft(tag)

    def _after_ambiguous_tag(self, call: _Call, scanner: CallScanner, symbol: _Symbol) -> None:
        """A tag came inside a value: read on until it is clear whether the value continues after it."""
        call.after_tag.append(symbol)
        for char in symbol.text:
            if scanner.is_tag_text is None:
                scanner.feed(char)
        if scanner.is_tag_text is True:
            scanner.keep_ambiguous_tag()
            call.after_tag.clear()
            self._report(call, scanner)
        elif scanner.is_tag_text is False:
            self._end_at_ambiguous_tag(call, scanner)

    def _end_at_ambiguous_tag(self, call: _Call, scanner: CallScanner) -> None:
        """The tag ended the call: close the call there and read again what follows the tag."""
        tag, *following = call.after_tag
        scanner.cut_at_ambiguous_tag()
        self._queue.extendleft(reversed(following))
        self._end_by_tag(call, scanner, tag)

    def _end_of_turn(self, call: _Call) -> None:
        if call.scanner is None and call.must_look_like_call:
            self._call = None
            self._keep_as_text(call.opening)
        elif call.scanner is None:
            self._close(call, JSONCallScanner(), is_closed=False)
        elif call.scanner.ambiguous_at is not None:
            self._end_at_ambiguous_tag(call, call.scanner)
        else:
            self._close(call, call.scanner, is_closed=False)

    def _report(self, call: _Call, scanner: CallScanner, is_last: bool = False) -> None:
        if not call.is_announced and scanner.name:
            self._announce(call, scanner.name)
        if call.is_announced and (text := scanner.take_arguments(is_last)):
            self._events.append(ToolCallDelta(call.index, text))

    def _announce(self, call: _Call, name: str) -> None:
        call.is_announced = True
        self._events.append(ToolCallStart(call.index, name.strip()))

    def _close(self, call: _Call, scanner: CallScanner, is_closed: bool) -> None:
        self._report(call, scanner, is_last=True)
        for parsed in read_calls(scanner.text, is_closed, self._tools):
            self._complete(call, parsed, scanner)
            call = _Call(self._completed_calls)
        self._call = None
        self._new_section(thinking=False)

    def _complete(self, call: _Call, parsed: ParsedCall, scanner: CallScanner) -> None:
        if not call.is_announced:
            self._announce(call, parsed.name)
            self._report(call, scanner, is_last=True)
        self._completed_calls += 1
        raw = scanner.text.strip()
        self._events.append(ToolCall(call.index, parsed.name, parsed.arguments, raw, parsed.error))

    def _take_events(self) -> list[Event]:
        events, self._events = merge_deltas(self._events), []
        return events


def merge_deltas(events: Iterable[Event]) -> list[Event]:
    """`events` with adjacent deltas of the same kind (and call) joined."""
    merged: list[Event] = []
    for event in events:
        match merged[-1] if merged else None, event:
            case (ThinkingDelta(before), ThinkingDelta(text)):
                merged[-1] = ThinkingDelta(before + text)
            case (AnswerDelta(before), AnswerDelta(text)):
                merged[-1] = AnswerDelta(before + text)
            case (ToolCallDelta(index, before), ToolCallDelta(same_index, text)) if index == same_index:
                merged[-1] = ToolCallDelta(index, before + text)
            case _:
                merged.append(event)
    return merged

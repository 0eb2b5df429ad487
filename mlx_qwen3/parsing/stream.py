"""The stream parser: text and control tokens in, events out. The rules are in the package's docstring.

Works character by character, so how the stream was cut into pieces cannot matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_qwen3.events import AnswerDelta, Event, ThinkingDelta, ToolCall, ToolCallDelta, ToolCallStart
from mlx_qwen3.parsing.call_reader import Offer, Reading, read_calls
from mlx_qwen3.parsing.call_scanner import CLOSE, OPEN, Body, JSONBody, Tag, XMLBody
from mlx_qwen3.parsing.sections import Section

THINK, THINK_END = "<think>", "</think>"
TAGS = (THINK, THINK_END, OPEN, CLOSE)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A character of text, or a tag: a control token, or its spelling where that counts."""

    text: str
    is_tag: bool = False
    is_spelled: bool = False


@dataclass
class _Call:
    """The call being read. body is None until its first character tells the format."""

    index: int
    must_look_like_one: bool = False
    opening: list[_Piece] = field(default_factory=list)
    body: Body | None = None
    is_unwrapped: bool = False
    is_announced: bool = False
    after_doubt: list[_Piece] = field(default_factory=list)


class StreamParser:
    """Splits one turn into ThinkingDelta, AnswerDelta, ToolCallStart, ToolCallDelta and ToolCall.

    control: the tags the tokenizer has tokens for, of which spellings are text; None for all of them.
    thinking: the stream starts inside thinking, the prompt opened it.
    tool_format: how the checkpoint writes calls, None if it cannot or no tools are offered.
    tool_names: the tools offered; None if any name will do. tool_schemas: their parameters, name ->
    JSON schema, to type XML values by; tells the names too, if `tool_names` does not.

    No input raises. Every ToolCall has a ToolCallStart before it.
    """

    def __init__(
        self,
        control: Collection[str] | None = None,
        thinking: bool = False,
        tool_format: Literal["json", "xml"] | str | None = "json",
        tool_names: frozenset[str] | None = None,
        tool_schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if tool_names is None and tool_schemas is not None:
            tool_names = frozenset(tool_schemas)
        self._offer = Offer(tool_names, tool_schemas or {})
        self._has_tools = tool_format is not None
        self._spelled = [] if control is None else [tag for tag in TAGS if tag not in control]
        if tool_format == "xml":
            self._spelled += [f"<function={name}>" for name in tool_names or ()]
        self._tag_starts = frozenset(tag[:end] for tag in self._spelled for end in range(1, len(tag)))
        self._maybe_tag = ""
        self._queue: deque[_Piece] = deque()
        self._mentions: dict[str, int] = {}  # closing tags that are to be text
        self._is_thinking = thinking
        self._section = Section()
        self._call: _Call | None = None
        self._calls = 0
        self._has_said = False
        self._events: list[Event] = []

    def push_text(self, text: str) -> list[Event]:
        """More text, of ordinary tokens."""
        for char in text:
            self._spell(char)
        return self._take_events()

    def push_control(self, name: str) -> list[Event]:
        """A control token, by its spelling."""
        self._give_up_tag()
        self._queue.append(_Piece(name, is_tag=True))
        self._run()
        return self._take_events()

    def finish(self) -> list[Event]:
        """The turn is over: show what was held back, close what is open."""
        self._give_up_tag()
        while self._call is not None:
            self._end_of_turn(self._call)
            self._run()
        self._emit_text(self._section.rest())
        self._section = Section()
        return self._take_events()

    # Spelled tags

    def _spell(self, char: str) -> None:
        """Hold back what may become a tag; pass on tags and the rest."""
        self._maybe_tag += char
        while self._maybe_tag and self._maybe_tag not in self._tag_starts:
            if self._maybe_tag in self._spelled:
                self._queue.append(_Piece(self._maybe_tag, is_tag=True, is_spelled=True))
                self._maybe_tag = ""
            else:
                self._queue.append(_Piece(self._maybe_tag[0]))
                self._maybe_tag = self._maybe_tag[1:]
            self._run()

    def _give_up_tag(self) -> None:
        self._queue.extend(map(_Piece, self._maybe_tag))
        self._maybe_tag = ""
        self._run()

    def _run(self) -> None:
        while self._queue:
            piece = self._queue.popleft()
            if self._call is not None:
                self._in_call(self._call, piece)
            elif not piece.is_tag:
                self._say(piece.text)
            elif self._is_thinking:
                self._tag_in_thinking(piece)
            else:
                self._tag_in_answer(piece)

    # Thinking and answer

    def _say(self, text: str) -> None:
        for char in text:
            self._emit_text(self._section.add(char))

    def _emit_text(self, text: str) -> None:
        if text:
            self._has_said = True
            self._events.append(ThinkingDelta(text) if self._is_thinking else AnswerDelta(text))

    def _new_section(self, thinking: bool) -> None:
        self._section, self._is_thinking = Section(), thinking
        self._mentions.clear()

    def _tag_in_thinking(self, piece: _Piece) -> None:
        code = self._section.code
        if piece.text == THINK_END and not (piece.is_spelled and code.in_span):
            self._new_section(thinking=False)
        elif piece.text == THINK and self._section.is_empty:
            return  # the prompt opened thinking, and the model opens it once more
        elif piece.text in (OPEN, CLOSE) or code.inside or piece.is_spelled:
            self._say(piece.text)

    def _tag_in_answer(self, piece: _Piece) -> None:
        if self._section.code.inside:
            self._say(piece.text)
        elif self._mentions.get(piece.text):
            self._mentions[piece.text] -= 1
            self._say(piece.text)
        elif piece.text == THINK:
            if piece.is_spelled and self._has_said:
                self._mention([piece])
            else:
                self._new_section(thinking=True)
        elif piece.text == OPEN or (piece.is_spelled and piece.text not in TAGS):
            self._open_call(piece)

    def _open_call(self, piece: _Piece) -> None:
        at_line_start = self._section.code.at_line_start
        is_unwrapped = piece.text != OPEN
        if not self._has_tools or (is_unwrapped and not at_line_start):
            self._mention([piece])
            return
        self._call = _Call(self._calls, not at_line_start, [piece], is_unwrapped=is_unwrapped)
        if is_unwrapped:
            self._queue.extendleft(map(_Piece, reversed(piece.text)))

    def _mention(self, pieces: list[_Piece]) -> None:
        """An opening tag and what follows are text, and so will be the tag that closes it."""
        closing = {OPEN: CLOSE, THINK: THINK_END}.get(pieces[0].text, "")
        self._mentions[closing] = self._mentions.get(closing, 0) + 1
        for piece in pieces:
            self._say(piece.text)

    # Calls

    def _in_call(self, call: _Call, piece: _Piece) -> None:
        if piece.is_spelled and piece.text not in TAGS:
            self._queue.extendleft(map(_Piece, reversed(piece.text)))
        elif call.body is None:
            self._begin_body(call, piece)
        elif call.body.mark is not None:
            self._in_doubt(call, call.body, piece)
        elif piece.is_tag:
            self._tag_in_call(call, call.body, piece)
        else:
            self._feed(call, call.body, piece.text)

    def _begin_body(self, call: _Call, piece: _Piece) -> None:
        """The first character tells the format, or that this was a mention and no call."""
        if not piece.is_tag and piece.text.isspace():
            call.opening.append(piece)
        elif call.must_look_like_one and (piece.is_tag or piece.text not in "{[<"):
            self._call = None
            self._mention(call.opening)
            self._queue.appendleft(piece)
        else:
            self._new_section(thinking=False)
            self._has_said = True
            call.body = XMLBody() if piece.text == "<" else JSONBody()
            for held in call.opening[1:]:
                call.body.feed(held.text)
            self._queue.appendleft(piece)

    def _feed(self, call: _Call, body: Body, text: str) -> None:
        for char in text:
            body.feed(char)
        self._report(call, body)
        if body.is_complete and ((call.is_unwrapped and text == ">") or body.text.endswith(CLOSE)):
            self._close(call, body, is_closed=True)

    def _tag_in_call(self, call: _Call, body: Body, piece: _Piece) -> None:
        if piece.text not in (OPEN, CLOSE):
            if piece.is_spelled or body.judge(CLOSE) is not Tag.ENDS:
                self._feed(call, body, piece.text)
            return
        match body.judge(piece.text):
            case Tag.ENDS:
                self._end_by(call, body, piece)
            case Tag.TEXT:
                self._feed(call, body, piece.text)
            case Tag.DOUBT:
                body.doubt()
                self._in_doubt(call, body, piece)

    def _end_by(self, call: _Call, body: Body, piece: _Piece) -> None:
        self._close(call, body, is_closed=piece.text == CLOSE)
        if piece.text == OPEN:
            self._queue.appendleft(piece)

    def _in_doubt(self, call: _Call, body: Body, piece: _Piece) -> None:
        """A tag stood inside a value. Read on until it is clear whether the value went on behind it."""
        call.after_doubt.append(piece)
        for char in piece.text:
            if body.settled is None:
                body.feed(char)
        if body.settled is True:
            self._settle_as_text(call, body)
        elif body.settled is False:
            self._settle_as_end(call, body)

    def _settle_as_text(self, call: _Call, body: Body) -> None:
        body.trust()
        call.after_doubt.clear()
        self._report(call, body)

    def _settle_as_end(self, call: _Call, body: Body) -> None:
        """The tag was the end: close the call there and read again what came behind."""
        tag, *after = call.after_doubt
        body.cut()
        self._queue.extendleft(reversed(after))
        self._end_by(call, body, tag)

    def _end_of_turn(self, call: _Call) -> None:
        if call.body is None and call.must_look_like_one:
            self._call = None
            self._mention(call.opening)
        elif call.body is None:
            self._close(call, JSONBody(), is_closed=False)
        elif call.body.mark is not None:
            self._settle_as_end(call, call.body)
        else:
            self._close(call, call.body, is_closed=False)

    def _report(self, call: _Call, body: Body, is_last: bool = False) -> None:
        if not call.is_announced and body.name:
            self._announce(call, body.name)
        if call.is_announced and (text := body.take_arguments(is_last)):
            self._events.append(ToolCallDelta(call.index, text))

    def _announce(self, call: _Call, name: str) -> None:
        call.is_announced = True
        self._events.append(ToolCallStart(call.index, name.strip()))

    def _close(self, call: _Call, body: Body, is_closed: bool) -> None:
        self._report(call, body, is_last=True)
        for reading in read_calls(body.text, is_closed, self._offer):
            self._complete(call, reading, body)
            call = _Call(self._calls)
        self._call = None
        self._new_section(thinking=False)

    def _complete(self, call: _Call, reading: Reading, body: Body) -> None:
        if not call.is_announced:
            self._announce(call, reading.name)
            self._report(call, body, is_last=True)
        self._calls += 1
        raw = body.text.strip()
        self._events.append(ToolCall(call.index, reading.name, reading.arguments, raw, reading.error))

    def _take_events(self) -> list[Event]:
        events, self._events = merge(self._events), []
        return events


def merge(events: Iterable[Event]) -> list[Event]:
    """The same events with adjacent deltas of one kind (and call) joined."""
    merged: list[Event] = []
    for event in events:
        match merged[-1] if merged else None, event:
            case (ThinkingDelta(before), ThinkingDelta(text)):
                merged[-1] = ThinkingDelta(before + text)
            case (AnswerDelta(before), AnswerDelta(text)):
                merged[-1] = AnswerDelta(before + text)
            case (ToolCallDelta(index, before), ToolCallDelta(same, text)) if index == same:
                merged[-1] = ToolCallDelta(index, before + text)
            case _:
                merged.append(event)
    return merged

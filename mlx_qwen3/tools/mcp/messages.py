"""Splits a server's stdout into JSON-RPC messages, with a size limit and tolerance for invalid lines."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_INVALID_LINES = 100
# What a server may send unasked, requests and notifications: so many at once, and so many a second.
UNASKED_AT_ONCE, UNASKED_A_SECOND = 2000, 50
MAX_OPEN_REQUESTS = 100  # of the server, that are not answered yet
_KEPT_BYTES = 1000  # of the start and of the end of a message over the limit

_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_ID = rb'"id"\s*:\s*(?:(\d{1,15})|"([\w-]{1,80})")\s*'
_ID_AT_START = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _ID + rb"[,}]")
# The SDK for TypeScript writes the id last.
_ID_AT_END = re.compile(_ID + rb"(?:,\s*" + _VERSION + rb")?\}\s*$")
_REQUEST = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?(?:" + _ID + rb',\s*)?"method"')
_ANSWER = re.compile(rb'"(?:result|error)"\s*:')
# A pair of surrogate escapes, a surrogate escape without its partner (group 1), or another escape.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotAServerError(Exception):
    """The program does not keep to the protocol: it prints other things, or messages without end."""


class Unasked:
    """Counts what a server sends unasked, and raises NotAServerError when it is a flood.

    Every request of a server becomes a task and an answer, which it may never read.
    """

    def __init__(self) -> None:
        self._left, self._then = float(UNASKED_AT_ONCE), time.monotonic()
        self._open: set[RequestId] = set()

    def count(self, messages: int = 1) -> None:
        """So many more messages have come."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._then) * UNASKED_A_SECOND, UNASKED_AT_ONCE) - messages
        self._then = now
        if self._left < 0:
            raise NotAServerError("it sends messages without end")

    def open(self, request: RequestId) -> None:
        """A request of the server has come."""
        self._open.add(request)
        if len(self._open) > MAX_OPEN_REQUESTS:
            raise NotAServerError("it sends requests and does not read the answers")

    def close(self, request: RequestId) -> None:
        """The answer to a request of the server was written."""
        self._open.discard(request)


def repair_json(data: bytes) -> bytes:
    """`data` as UTF-8 without lone surrogates: both invalid bytes and lone escapes become U+FFFD.

    JavaScript's strings may hold lone surrogates (half an emoji, cut by length); pydantic refuses them.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode(errors="replace").encode()
    if _SURROGATE_ESCAPE.search(data):
        data = _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], data)
    return data


class MessageReader:
    """Turns chunks of bytes into messages, one a line.

    An invalid line goes to `on_invalid`. The request it answers gets an error at once. So does a request
    whose answer has more than `limit` bytes; no more than that is held in memory. If the id of such an
    answer cannot be read, all `pending` requests get the error. Raises NotAServerError after
    MAX_INVALID_LINES.

    Attributes:
        pending: Ids of the requests without an answer. The sender adds them, the reader removes them.
        unasked: What the server sends unasked.
    """

    def __init__(
        self,
        on_invalid: Callable[[bytes], None],
        limit: int = MAX_MESSAGE_BYTES,
        pending: set[RequestId] | None = None,
    ):
        self._on_invalid, self._limit = on_invalid, limit
        self.pending: set[RequestId] = set() if pending is None else pending
        self.unasked = Unasked()
        self._invalid = 0
        self._start_line()

    def feed(self, chunk: bytes) -> Iterator[SessionMessage]:
        """The messages that `chunk` completes."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield from self._add(end)
            if self._size <= self._limit:
                yield from self._parse(b"".join(self._parts))
            elif not self._is_answered and not _REQUEST.match(self._head):
                yield from self._fail(_id_in(_ID_AT_END.search(self._tail)), self._too_large)
            self._start_line()
        yield from self._add(rest)

    @property
    def _too_large(self) -> str:
        return f"the server's answer is larger than {self._limit >> 20} MB"

    def _start_line(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._head = self._tail = b""
        self._is_answered = False

    def _add(self, part: bytes) -> Iterator[SessionMessage]:
        was_small = self._size <= self._limit
        self._size += len(part)
        if self._size <= self._limit:
            self._parts.append(part)
            return
        if was_small:
            held = b"".join(self._parts)
            self._parts = []
            self._head = (held + part[:_KEPT_BYTES])[:_KEPT_BYTES]
            self._tail = held[-_KEPT_BYTES:]
            self._on_invalid(b"(a message of more than %d bytes) " % self._limit + self._head[:200])
            request = _id_in(_ID_AT_START.match(self._head))
            if request is not None and not _REQUEST.match(self._head):
                self._is_answered = True
                yield from self._fail(request, self._too_large)
        self._tail = (self._tail + part)[-_KEPT_BYTES:]

    def _parse(self, line: bytes) -> Iterator[SessionMessage]:
        if not line.strip():
            return
        message = _validated(line) or _validated(repair_json(line))
        if message is not None:
            yield from self._deliver(message)
            return
        try:
            value = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list):  # a batch, which protocol 2025-03-26 allowed
            parts = [_validated(repair_json(json.dumps(item).encode())) for item in value]
            messages = [part for part in parts if part is not None]
            if len(messages) == len(value):
                for part in messages:
                    yield from self._deliver(part)
                return
        self._invalid += 1
        self._on_invalid(line)
        if self._invalid > MAX_INVALID_LINES:
            raise NotAServerError("what it prints is not the protocol")
        yield from self._fail_answer(line, value)

    def _deliver(self, message: JSONRPCMessage) -> Iterator[SessionMessage]:
        if isinstance(message, JSONRPCError) and message.id is None:
            yield from self._fail(None, message.error.message)
            return
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            if message.id is None or message.id not in self.pending:
                self.unasked.count()
            elif message.id is not None:
                self.pending.discard(message.id)
        else:
            self.unasked.count()
            if isinstance(message, JSONRPCRequest):
                self.unasked.open(message.id)
        yield SessionMessage(message)

    def _fail_answer(self, line: bytes, value: Any) -> Iterator[SessionMessage]:
        """An error for the request that an invalid line answers, if it is an answer."""
        if isinstance(value, dict):
            request = value.get("id")
            is_answer = "method" not in value and (request is not None or "result" in value)
        else:
            request = _id_in(_ID_AT_START.match(line) or _ID_AT_END.search(line))
            is_jsonrpc = re.match(rb"\s*\{", line) and b'"jsonrpc"' in line and _ANSWER.search(line)
            is_answer = not _REQUEST.match(line) and (request is not None or bool(is_jsonrpc))
        if is_answer:
            if isinstance(request, bool) or not isinstance(request, int | str):
                request = None
            yield from self._fail(request, "the server's answer is not valid JSON-RPC")

    def _fail(self, request: RequestId | None, message: str) -> Iterator[SessionMessage]:
        """An error for `request`, or for all pending requests if it is None."""
        for failed in sorted(self.pending, key=str) if request is None else [request]:
            self.pending.discard(failed)
            error = ErrorData(code=INTERNAL_ERROR, message=message)
            yield SessionMessage(JSONRPCError(jsonrpc="2.0", id=failed, error=error))


def _validated(line: bytes) -> JSONRPCMessage | None:
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        return None


def _id_in(match: re.Match[bytes] | None) -> RequestId | None:
    if match is None:
        return None
    return int(match[1]) if match[1] else match[2].decode()

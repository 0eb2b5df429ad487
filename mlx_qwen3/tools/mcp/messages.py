"""The bytes of a server's stdout -> JSON-RPC messages, however many bytes and whatever is in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_INVALID_LINES = 100
_ID = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(?:(\d{1,15})|"([\w-]{1,80})")\s*[,}]'
)


class NotAServerError(Exception):
    """What the program prints is not the protocol."""


class MessageReader:
    """Takes chunks of bytes, gives messages, one a line.

    A line that is no message is passed to `on_garbage`. Where it names the request it answers, that
    request gets an error at once, and so does one whose answer is larger than `limit` bytes, of which
    no more than that is ever held. Raises NotAServerError when garbage is all that comes.
    """

    def __init__(self, on_garbage: Callable[[bytes], None], limit: int = MAX_MESSAGE_BYTES):
        self._on_garbage, self._limit = on_garbage, limit
        self._parts: list[bytes] = []
        self._size = 0
        self._invalid = 0

    def feed(self, chunk: bytes) -> Iterator[SessionMessage]:
        """The messages that `chunk` completes."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield from self._add(end)
            if self._size <= self._limit:
                yield from self._parse(b"".join(self._parts))
            self._parts, self._size = [], 0
        yield from self._add(rest)

    def _add(self, part: bytes) -> Iterator[SessionMessage]:
        was_small = self._size <= self._limit
        self._size += len(part)
        if self._size <= self._limit:
            self._parts.append(part)
        elif was_small:
            self._parts.append(part[:1000])
            head = b"".join(self._parts)[:1000]
            self._parts = []
            self._on_garbage(b"(a message of more than %d bytes) " % self._limit + head[:200])
            yield from _failure(head, f"the server's answer is larger than {self._limit >> 20} MB")

    def _parse(self, line: bytes) -> Iterator[SessionMessage]:
        if not line.strip():
            return
        try:
            yield SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValidationError:
            self._invalid += 1
            self._on_garbage(line)
            if self._invalid > MAX_INVALID_LINES:
                raise NotAServerError("what it prints is not the protocol") from None
            yield from _failure(line, "the server's answer is not valid JSON-RPC")


def _failure(line: bytes, message: str) -> Iterator[SessionMessage]:
    """An error for the request that `line` answers, if it can be told."""
    if match := _ID.match(line):
        request = int(match[1]) if match[1] else match[2].decode()
        error = ErrorData(code=INTERNAL_ERROR, message=message)
        yield SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=error))

"""Splits a server's stdout into JSON-RPC messages, with a size limit and tolerance for invalid lines."""

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
    """The program prints many lines that are not JSON-RPC messages."""


class MessageReader:
    """Turns chunks of bytes into messages, one a line.

    An invalid line goes to `on_invalid`. If it names the request it answers, that request gets an error at
    once. So does a request whose answer has more than `limit` bytes; no more than that is held in memory.
    Raises NotAServerError after MAX_INVALID_LINES.
    """

    def __init__(self, on_invalid: Callable[[bytes], None], limit: int = MAX_MESSAGE_BYTES):
        self._on_invalid, self._limit = on_invalid, limit
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
            self._on_invalid(b"(a message of more than %d bytes) " % self._limit + head[:200])
            yield from _failure(head, f"the server's answer is larger than {self._limit >> 20} MB")

    def _parse(self, line: bytes) -> Iterator[SessionMessage]:
        if not line.strip():
            return
        try:
            yield SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValidationError:
            self._invalid += 1
            self._on_invalid(line)
            if self._invalid > MAX_INVALID_LINES:
                raise NotAServerError("what it prints is not the protocol") from None
            yield from _failure(line, "the server's answer is not valid JSON-RPC")


def _failure(line: bytes, message: str) -> Iterator[SessionMessage]:
    """An error for the request that `line` answers, if its id can be read."""
    if match := _ID.match(line):
        request = int(match[1]) if match[1] else match[2].decode()
        error = ErrorData(code=INTERNAL_ERROR, message=message)
        yield SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=error))

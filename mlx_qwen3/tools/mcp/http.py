"""A server at an address: the SDK's streamable HTTP transport, with headers and a size limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from mlx_qwen3.tools.mcp.config import ServerConfig
from mlx_qwen3.tools.mcp.messages import MAX_MESSAGE_BYTES, NotAServerError, Unasked, repair_json

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def http_transport(config: ServerConfig, on_http_error: Callable[[int], None]) -> AsyncIterator[Any]:
    """Yields the streams the SDK wants. `on_http_error` gets each HTTP status of 400 and above."""
    # Refuse compression: a small body could unpack to any size.
    headers = {"Accept-Encoding": "identity", **config.headers}
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=max(config.timeout, 300.0))
    async with (
        httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=_BoundedTransport(on_http_error)
        ) as client,
        streamable_http_client(
            config.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES
        ) as streams,
    ):
        yield streams


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Limits the size of a response, and repairs text in it that the SDK could not read."""

    def __init__(self, on_http_error: Callable[[int], None]):
        super().__init__()
        self._on_http_error = on_http_error

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.status_code >= 400:
            self._on_http_error(response.status_code)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        is_events = response.headers.get("content-type", "").startswith("text/event-stream")
        is_plain = response.headers.get("content-encoding", "identity") == "identity"
        response.stream = (_EventStream if is_events else _BoundedStream)(response.stream, is_plain)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    """A body of at most MAX_MESSAGE_BYTES, repaired as a whole unless it is compressed."""

    def __init__(self, stream: httpx2.AsyncByteStream, is_plain: bool):
        self._stream, self._is_plain = stream, is_plain

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = bytearray()
        async for chunk in self._stream:
            body += chunk
            if len(body) > MAX_MESSAGE_BYTES:
                # The SDK fails the request for this error, and the connection for others.
                raise httpx2.StreamError(f"the server's answer is larger than {MAX_MESSAGE_BYTES >> 20} MB")
        yield repair_json(bytes(body)) if self._is_plain else bytes(body)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _EventStream(_BoundedStream):
    """A stream of events, repaired line by line. The SDK limits the size of each event.

    Their number is limited too: whatever a server sends unasked comes as events.
    """

    def __init__(self, stream: httpx2.AsyncByteStream, is_plain: bool):
        super().__init__(stream, is_plain)
        self._unasked = Unasked()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = bytearray()  # a line that is not complete
        async for chunk in self._stream:
            self._count(chunk)
            held += chunk
            end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
            if end or len(held) > MAX_MESSAGE_BYTES:
                cut = len(held) - len(chunk) + end if end else len(held)
                yield self._repaired(bytes(held[:cut]))
                del held[:cut]
        yield self._repaired(bytes(held))

    def _count(self, chunk: bytes) -> None:
        try:
            self._unasked.count(chunk.count(b"data:"))
        except NotAServerError as error:
            raise httpx2.StreamError(f"the server was left: {error}") from None

    def _repaired(self, lines: bytes) -> bytes:
        return repair_json(lines) if self._is_plain else lines

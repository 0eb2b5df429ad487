"""A server at an address: the SDK's streamable HTTP transport, with headers and a size limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from mlx_qwen3.tools.mcp.config import ServerConfig
from mlx_qwen3.tools.mcp.messages import MAX_MESSAGE_BYTES

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def http_transport(config: ServerConfig, on_refusal: Callable[[int], None]) -> AsyncIterator[Any]:
    """Yields the streams the SDK wants. `on_refusal` gets each HTTP status of 400 and above."""
    # Refuse compression: a small body could unpack to any size.
    headers = {"Accept-Encoding": "identity", **config.headers}
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=max(config.timeout, 300.0))
    async with (
        httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=_BoundedTransport(on_refusal)
        ) as client,
        streamable_http_client(
            config.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES
        ) as streams,
    ):
        yield streams


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Fails a response larger than MAX_MESSAGE_BYTES. Event streams are left to the SDK's limit per event."""

    def __init__(self, on_refusal: Callable[[int], None]):
        super().__init__()
        self._on_refusal = on_refusal

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.status_code >= 400:
            self._on_refusal(response.status_code)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream):
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_MESSAGE_BYTES:
                # The SDK fails the request for this error, and the connection for others.
                raise httpx2.StreamError(f"the server's answer is larger than {MAX_MESSAGE_BYTES >> 20} MB")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()

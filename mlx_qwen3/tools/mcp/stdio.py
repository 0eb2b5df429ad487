"""A server as a child process: messages on stdin and stdout, stderr copied to a log file.

Unlike the SDK's own transport it limits the size of a message, survives invalid output, keeps stderr off
the terminal, and reports the end of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from mlx_qwen3.tools.base import ToolError
from mlx_qwen3.tools.mcp.config import ServerConfig
from mlx_qwen3.tools.mcp.messages import MessageReader, NotAServerError

MAX_LOG_BYTES = 5 * 1024 * 1024
GRACE_SECONDS = 2.0
_CHUNK = 1 << 16

Inbox = MemoryObjectSendStream[SessionMessage | Exception]
Outbox = MemoryObjectReceiveStream[SessionMessage]


class Log:
    """A server's log file, which only its user can read, limited to MAX_LOG_BYTES.

    Errors of the disk are ignored: the server goes on. `problem` says why a server was ended.
    """

    def __init__(self, file: Path):
        self._file, self._left = file, MAX_LOG_BYTES
        self.problem = ""
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.unlink(missing_ok=True)  # an earlier one may be readable by others, or a link
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def write(self, data: bytes) -> None:
        """Append to the log."""
        if self._left > 0:
            with contextlib.suppress(OSError), self._file.open("ab") as out:
                out.write(data[: self._left])
        self._left -= len(data)

    def write_invalid_line(self, line: bytes) -> None:
        """Append the start of a line that is not a message."""
        self.write(b"[not a message] " + line[:500] + b"\n")


@asynccontextmanager
async def stdio_transport(config: ServerConfig, log: Log, ended: asyncio.Event) -> AsyncIterator[Any]:
    """Start the server and yield the streams the SDK wants. Sets `ended` once the server closes stdout.

    On exit the process and its children are stopped. Raises ToolError if it cannot be started.
    """
    process = await _start(config)
    guard = await _start_guard(process)
    inbox, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    reader = MessageReader(log.write_invalid_line)
    tasks = [
        asyncio.ensure_future(_read(process, inbox, reader, log, ended)),
        asyncio.ensure_future(_write(process, outbox, reader)),
        asyncio.ensure_future(_copy_log(process, log)),
    ]
    try:
        yield from_server, to_server
    finally:
        with anyio.CancelScope(shield=True):
            from_server.close()
            to_server.close()
            await _stop(process, guard)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _start(config: ServerConfig) -> Process:
    environment = get_default_environment() | dict(config.env)
    try:
        return await asyncio.create_subprocess_exec(
            *(config.command, *config.args),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            cwd=config.cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        if config.cwd and not Path(config.cwd).is_dir():
            raise ToolError(f"its folder {config.cwd} does not exist") from error
        why = "was not found" if isinstance(error, FileNotFoundError) else f"cannot be run: {error}"
        raise ToolError(f'its command "{config.command}" {why}') from error


async def _start_guard(process: Process) -> Process | None:
    """A shell that kills the server's process group when this program dies, however it dies.

    Its stdin ends with this program; a server may not care that its own does.
    """
    script = "trap '' INT TERM HUP; while read -r _; do :; done; kill -s KILL -- -\"$1\""
    with contextlib.suppress(OSError):  # without a shell, the server is as before
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", script, "guard", str(process.pid)),
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
        )
    return None


async def _read(
    process: Process, inbox: Inbox, reader: MessageReader, log: Log, ended: asyncio.Event
) -> None:
    assert process.stdout
    try:
        async with inbox:
            while chunk := await process.stdout.read(_CHUNK):
                for message in reader.feed(chunk):
                    await inbox.send(message)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, NotAServerError) as error:
        log.write_invalid_line(repr(error).encode())
        log.problem = str(error) if isinstance(error, NotAServerError) else ""
    finally:
        ended.set()


async def _write(process: Process, outbox: Outbox, reader: MessageReader) -> None:
    assert process.stdin
    with contextlib.suppress(ConnectionError, anyio.ClosedResourceError):
        async with outbox:
            async for message in outbox:
                if isinstance(message.message, JSONRPCRequest):
                    reader.pending.add(message.message.id)
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
                if (
                    isinstance(message.message, JSONRPCResponse | JSONRPCError)
                    and message.message.id is not None
                ):
                    reader.unasked.close(message.message.id)


async def _copy_log(process: Process, log: Log) -> None:
    assert process.stderr
    while chunk := await process.stderr.read(_CHUNK):
        log.write(chunk)


async def _stop(process: Process, guard: Process | None) -> None:
    """Close stdin; then send SIGTERM, then SIGKILL, to the process group; wait after each."""
    assert process.stdin
    process.stdin.close()
    try:
        await _end(process)
    finally:
        if guard is not None:  # before the server's number can become another's
            with contextlib.suppress(ProcessLookupError):
                guard.kill()
            guard.stdin.close()  # type: ignore[union-attr]
            await guard.wait()
            _close(guard)
        _close(process)


def _close(process: Process) -> None:
    """Close the pipes to an ended process now: a loop that stops soon would leave them to the collector."""
    process._transport.close()  # type: ignore[attr-defined]  # asyncio has no public way


async def _end(process: Process) -> None:
    for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
        if signal_number is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal_number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
                return

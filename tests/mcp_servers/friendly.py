"""A well-behaved server on the SDK. `friendly.py` speaks over stdio, `friendly.py PORT` over HTTP."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("friendly", log_level="WARNING")


@server.tool(annotations=types.ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def read(name: str) -> str:
    """Reads a variable of the server's environment, or `cwd`."""
    print("read", name, file=sys.stderr, flush=True)
    return str(Path.cwd()) if name == "cwd" else os.environ.get(name, "(not set)")


@server.tool()
async def sleep(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "slept"


@server.tool()
def fail() -> str:
    """Fails."""
    raise ToolError("the tank is empty")


@server.tool(structured_output=False)
def show() -> list[Any]:
    """Shows everything there is."""
    return [
        types.TextContent(text="look:"),
        types.ImageContent(data="aGVsbG8=", mime_type="image/png"),
        types.AudioContent(data="aGVsbG8=", mime_type="audio/wav"),
        types.ResourceLink(name="notes", uri="memo://notes", mime_type="text/plain"),
        types.EmbeddedResource(resource=types.TextResourceContents(uri="memo://a", text="inside")),
        types.EmbeddedResource(resource=types.BlobResourceContents(uri="memo://b", blob="aGVsbG8=")),
    ]


@server.tool()
def big(size: int) -> str:
    """Says very much."""
    return "x" * size


@server.tool()
async def grow(context: Context) -> str:
    """Gets a new tool."""
    server.add_tool(lambda: "hello", name="hello", description="Says hello.")
    await context.notify_tools_changed()
    await context.session.send_tool_list_changed()
    return "grown"


@server.prompt()
def poem(about: str) -> str:
    """A poem."""
    return f"Write a poem about {about}."


@server.resource("memo://notes", mime_type="text/plain")
def notes() -> str:
    """My notes."""
    return "buy milk"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()

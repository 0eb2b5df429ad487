"""`/mcp`: the MCP servers of a chat, their prompts and resources."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlx_qwen3.cli.chat.state import ChatState
    from mlx_qwen3.tools.mcp import MCPServers

USAGE = (
    "/mcp takes nothing, prompts, resources, restart SERVER, prompt SERVER NAME KEY=VALUE ..., "
    "or read SERVER URI; quote values that contain spaces"
)


def mcp(state: ChatState, argument: str) -> None:
    """MCP servers: prompts, resources, restart, prompt, read NAME"""
    servers = state.tools.require_servers()
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise MessageError(f"{error}; {USAGE}") from None
    match words:
        case []:
            state.print_rows(
                (status.name, f"{status.state}, {status.tools} tools", status.problem or status.origin)
                for status in servers.statuses
            )
        case ["prompts"]:
            prompts = servers.prompts()
            state.print_rows((p.server, " ".join([p.name, *p.arguments]), p.description) for p in prompts)
            if not prompts:
                state.print_line("the servers offer no prompts")
        case ["resources"]:
            resources = servers.resources()
            state.print_rows((resource.server, resource.uri, resource.name) for resource in resources)
            if not resources:
                state.print_line("the servers offer no resources")
        case ["restart", server]:
            status = servers.restart(server)
            detail = f": {status.problem}" if status.problem else f", {status.tools} tools"
            state.print_line(f"{server}: {status.state}{detail}")
        case ["prompt", server, name, *values] if all("=" in value for value in values):
            arguments = dict(value.split("=", 1) for value in values)
            _check_arguments(servers, server, name, arguments)
            messages = servers.prompt(server, name, arguments)
            state.draft = "\n\n".join(message["content"] for message in messages)
        case ["read", server, uri]:
            text = servers.read(server, uri)
            state.attachments.append(text)
            state.print_line(f"{len(text):,} characters go before your next message")
        case _:
            raise MessageError(USAGE)


def _check_arguments(servers: MCPServers, server: str, name: str, arguments: Collection[str]) -> None:
    """Raises MessageError that names missing arguments of a prompt; many servers do not check them."""
    prompts = [prompt for prompt in servers.prompts() if (prompt.server, prompt.name) == (server, name)]
    missing = [argument for prompt in prompts for argument in prompt.required if argument not in arguments]
    if missing:
        usage = " ".join(f"{argument}=..." for argument in missing)
        raise MessageError(f"the prompt {name} needs {usage} after its name")

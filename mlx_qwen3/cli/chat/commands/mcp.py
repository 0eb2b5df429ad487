"""`/mcp`: the servers of a chat, and what they offer beside tools."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.terminal.printers import printable
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlx_qwen3.cli.chat.state import ChatState
    from mlx_qwen3.tools.mcp.servers import MCPServers

USAGE = (
    "/mcp takes nothing, prompts, resources, restart SERVER, prompt SERVER NAME KEY=VALUE ..., "
    "or read SERVER URI; quote what has blanks"
)


def run_mcp_command(state: ChatState, argument: str) -> None:
    """Run `/mcp argument`. Raises ToolError for what a server cannot do, MessageError for wrong usage."""
    servers = state.tools.find_servers()
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise MessageError(f"{error}; {USAGE}") from None
    match words:
        case []:
            state.say_rows(
                (status.name, f"{status.state}, {status.tools} tools", status.problem or status.origin)
                for status in servers.statuses
            )
        case ["prompts"]:
            prompts = servers.prompts()
            state.say_rows((p.server, " ".join([p.name, *p.arguments]), p.description) for p in prompts)
            if not prompts:
                state.say("the servers offer no prompts")
        case ["resources"]:
            resources = servers.resources()
            state.say_rows((resource.server, resource.uri, resource.name) for resource in resources)
            if not resources:
                state.say("the servers offer no resources")
        case ["restart", server]:
            status = servers.restart(server)
            how = f": {status.problem}" if status.problem else f", {status.tools} tools"
            state.say(printable(f"{server}: {status.state}{how}"))
        case ["prompt", server, name, *values] if all("=" in value for value in values):
            arguments = dict(value.split("=", 1) for value in values)
            _check_arguments(servers, server, name, arguments)
            messages = servers.prompt(server, name, arguments)
            state.draft = "\n\n".join(message["content"] for message in messages)
        case ["read", server, uri]:
            text = servers.read(server, uri)
            state.attachments.append(text)
            state.say(f"{len(text):,} characters go before your next message")
        case _:
            raise MessageError(USAGE)


def _check_arguments(servers: MCPServers, server: str, name: str, given: Collection[str]) -> None:
    """Raises MessageError naming the arguments a prompt needs and was not given; servers often do not."""
    found = [prompt for prompt in servers.prompts() if (prompt.server, prompt.name) == (server, name)]
    missing = [argument for prompt in found for argument in prompt.required if argument not in given]
    if missing:
        wanted = " ".join(f"{argument}=..." for argument in missing)
        raise MessageError(f"the prompt {name} needs {wanted} after its name")

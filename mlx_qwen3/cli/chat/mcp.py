"""`/mcp`: the servers of a chat, and what they offer beside tools."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.render import printable
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.state import ChatState

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
            state.say(printable(f"{server}: {status.state} {status.problem}"))
        case ["prompt", server, name, *values] if all("=" in value for value in values):
            messages = servers.prompt(server, name, dict(value.split("=", 1) for value in values))
            state.draft = "\n\n".join(message["content"] for message in messages)
        case ["read", server, uri]:
            text = servers.read(server, uri)
            state.attachments.append(text)
            state.say(f"{len(text):,} characters go before your next message")
        case _:
            raise MessageError(USAGE)

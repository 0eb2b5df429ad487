"""`/mcp`: the servers of a chat, and what they offer beside tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_qwen3.cli.chat.render import printable
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from mlx_qwen3.cli.chat.commands import ChatState

USAGE = (
    "/mcp takes nothing, prompts, resources, restart SERVER, prompt SERVER NAME KEY=VALUE ..., "
    "or read SERVER URI"
)


def run_mcp_command(state: ChatState, argument: str) -> None:
    """Run `/mcp argument`. Raises ToolError for what a server cannot do, MessageError for wrong usage."""
    servers = state.tools.find_servers()
    match argument.split():
        case []:
            for status in servers.statuses:
                problem = f" · {status.problem}" if status.problem else ""
                line = f"  {status.name:<16} {status.state}, {status.tools} tools · {status.origin}{problem}"
                state.say(printable(line))
        case ["prompts"]:
            for prompt in servers.prompts():
                takes = " ".join(prompt.arguments)
                state.say(printable(f"  {prompt.server} {prompt.name} {takes}  {prompt.description}"))
        case ["resources"]:
            for resource in servers.resources():
                state.say(printable(f"  {resource.server} {resource.uri}  {resource.name}"))
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

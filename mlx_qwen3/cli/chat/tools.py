"""The tools a chat offers the model: the built-in ones, MCP servers, and who allowed what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.chat.store import data_folder
from mlx_qwen3.tools.approval import Approvals
from mlx_qwen3.tools.base import Tool, ToolError
from mlx_qwen3.tools.toolbox import ToolBox

if TYPE_CHECKING:
    from mlx_qwen3.tools.mcp import MCPServers


class BuiltIn:
    """get_time and calculator, offered or not."""

    def __init__(self, enabled: bool):
        self.enabled = enabled

    @property
    def tools(self) -> Sequence[Tool]:
        if not self.enabled:
            return ()
        from mlx_qwen3.tools.builtin import calculator, get_time

        return (get_time, calculator)


class ChatTools:
    """Tools, servers and permissions of one chat. Close it when the chat is over.

    mcp_file: an `mcpServers` file; without one, mcp.json of the user's configuration folder, if it is
    there. Permissions given for a file hold for that file only. Raises ToolError for a bad file.
    """

    def __init__(self, builtin: bool, mcp_file: Path | None, allow: Collection[str]):
        file = mcp_file or _default_file()
        scope = str(mcp_file.resolve()) if mcp_file else "user"
        self.servers = _connect(file) if file else None
        self.builtin = BuiltIn(builtin)
        sources: list[Any] = [self.builtin]
        self.toolbox = ToolBox(sources=[*sources, self.servers] if self.servers else sources)
        self.approvals = Approvals(data_folder() / "approvals.json", scope, allow=allow)

    def find_servers(self) -> MCPServers:
        """The servers of this chat. Raises ToolError if there are none."""
        if self.servers is None:
            raise ToolError("no MCP servers are configured; start the chat with --mcp FILE")
        return self.servers

    def close(self) -> None:
        if self.servers is not None:
            self.servers.close()


def _default_file() -> Path | None:
    from platformdirs import user_config_path

    path = user_config_path("mlx-qwen3") / "mcp.json"
    return path if path.is_file() else None


def _connect(file: Path) -> MCPServers:
    from mlx_qwen3.tools.mcp import MCPServers, load_config

    servers = MCPServers(load_config(file))
    servers.start()
    return servers

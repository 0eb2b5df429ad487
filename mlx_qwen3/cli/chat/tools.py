"""The tools that a chat offers the model: built-in tools and MCP servers, with their permissions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.chat.saved_conversations import data_folder
from mlx_qwen3.tools.approval import Approvals
from mlx_qwen3.tools.base import Tool, ToolError
from mlx_qwen3.tools.toolbox import ToolBox

if TYPE_CHECKING:
    from mlx_qwen3.tools.mcp import MCPServers, ServerStatus


class BuiltInTools:
    """get_time and calculator, which can be switched on and off."""

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

    Servers start in the background; call `wait_for_servers` once the model is loaded.

    Args:
        builtin: Whether the built-in tools are offered at first.
        mcp_file: An `mcpServers` file. The default is mcp.json in the user's configuration folder, if it
            exists. Permissions given for a file are valid for that file only.
        allow: Keys of tools allowed without asking.

    Attributes:
        notify: Called from any thread with a line when a server changes. Until it is replaced, lines are
            kept for `take_notices`.

    Raises:
        ToolError: A file cannot be used.
    """

    def __init__(self, builtin: bool, mcp_file: Path | None, allow: Collection[str]):
        self._notices: SimpleQueue[str] = SimpleQueue()
        self.notify: Callable[[str], object] = self._notices.put
        file = mcp_file or (_default_file() if _default_file().is_file() else None)
        scope = str(mcp_file.resolve()) if mcp_file else "user"
        self.servers = self._connect(file) if file else None
        self.builtin = BuiltInTools(builtin)
        sources: list[Any] = [self.builtin]
        self.toolbox = ToolBox(sources=[*sources, self.servers] if self.servers else sources)
        self.approvals = Approvals(
            data_folder() / "approvals.json", scope, allow=allow, on_denied=self._report_denied
        )

    def wait_for_servers(self, seconds: float | None = None) -> list[ServerStatus]:
        """The status of each server, once all are ready or failed, or after `seconds`."""
        return self.servers.wait(seconds) if self.servers else []

    def unknown_allowed_tools(self) -> list[str]:
        """A line for each --allow name that no tool has; none until all servers are ready."""
        if self.servers and any(status.state != "ready" for status in self.servers.statuses):
            return []
        unknown = self.approvals.allow - {tool.key for tool in self.toolbox.tools.values()}
        return [f"--allow {name}: no offered tool has this name" for name in sorted(unknown)]

    def take_notices(self) -> list[str]:
        """The lines about servers since the last call."""
        return [self._notices.get() for _ in range(self._notices.qsize())]

    def require_servers(self) -> MCPServers:
        """The MCP servers of this chat. Raises ToolError if there are none."""
        if self.servers is None:
            raise ToolError(f"no MCP servers are configured; use --mcp FILE, or write {_default_file()}")
        return self.servers

    def close(self) -> None:
        if self.servers is not None:
            self.servers.close()

    def _report_denied(self, tool: Tool) -> None:
        self.notify(f"{tool.key} was denied: no one is here to ask; allow it with --allow {tool.key}")

    def _connect(self, file: Path) -> MCPServers:
        from mlx_qwen3.tools.mcp import MCPServers, load_config

        servers = MCPServers(load_config(file), on_change=lambda line: self.notify(line))
        servers.begin()
        return servers


def _default_file() -> Path:
    from platformdirs import user_config_path

    return user_config_path("mlx-qwen3") / "mcp.json"

"""The tools a chat offers the model: the built-in ones, MCP servers, and who allowed what."""

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
    from mlx_qwen3.tools.mcp.servers import MCPServers, ServerStatus


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
    there. Permissions given for a file hold for that file only. Servers begin to start at once; `wait`
    for them when all else is ready. tell: gets a line when one of them changes, from any thread.
    Raises ToolError for a bad file.
    """

    def __init__(self, builtin: bool, mcp_file: Path | None, allow: Collection[str]):
        self.tell: Callable[[str], object] = self._keep
        self._notices: SimpleQueue[str] = SimpleQueue()
        file = mcp_file or (_default_file() if _default_file().is_file() else None)
        scope = str(mcp_file.resolve()) if mcp_file else "user"
        self.servers = self._connect(file) if file else None
        self.builtin = BuiltIn(builtin)
        sources: list[Any] = [self.builtin]
        self.toolbox = ToolBox(sources=[*sources, self.servers] if self.servers else sources)
        self.approvals = Approvals(data_folder() / "approvals.json", scope, allow=allow)

    def wait(self, seconds: float | None = None) -> list[ServerStatus]:
        """How the servers are, once all are ready or have failed, or after `seconds`."""
        return self.servers.wait(seconds) if self.servers else []

    def problems_of_allow(self) -> list[str]:
        """A line for each name that was allowed and that no tool has; none until all servers are ready."""
        if self.servers and any(status.state != "ready" for status in self.servers.statuses):
            return []
        unknown = self.approvals.allow - {tool.key for tool in self.toolbox.tools.values()}
        return [f"--allow {name}: no tool that is offered has this name" for name in sorted(unknown)]

    def notices(self) -> list[str]:
        """What happened to servers since last asked, unless it was told."""
        return [self._notices.get() for _ in range(self._notices.qsize())]

    def find_servers(self) -> MCPServers:
        """The servers of this chat. Raises ToolError if there are none."""
        if self.servers is None:
            raise ToolError(f"no MCP servers are configured; use --mcp FILE, or write {_default_file()}")
        return self.servers

    def close(self) -> None:
        if self.servers is not None:
            self.servers.close()

    def _connect(self, file: Path) -> MCPServers:
        from mlx_qwen3.tools.mcp.servers import MCPServers, load_config

        servers = MCPServers(load_config(file), on_change=lambda line: self.tell(line))
        servers.begin()
        return servers

    def _keep(self, line: str) -> None:
        self._notices.put(line)


def _default_file() -> Path:
    from platformdirs import user_config_path

    return user_config_path("mlx-qwen3") / "mcp.json"

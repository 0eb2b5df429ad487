"""MCP (Model Context Protocol) servers: their configuration, their connections and their tools.

    from mlx_qwen3.tools.mcp import MCPServers, load_config

    with MCPServers(load_config("mcp.json")) as servers:
        box = ToolBox(sources=[servers])

Reading a configuration needs no extra. The names of `servers.py` are imported when first used, and raise
ToolError where the extra `mcp` is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlx_qwen3.tools.mcp.config import ServerConfig, load_config

if TYPE_CHECKING:
    from mlx_qwen3.tools.mcp.servers import MCPServers, PromptInfo, ResourceInfo, ServerStatus

__all__ = ["MCPServers", "PromptInfo", "ResourceInfo", "ServerConfig", "ServerStatus", "load_config"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.servers"), name)
    globals()[name] = value  # later uses do not call __getattr__
    return value


def __dir__() -> list[str]:
    return __all__

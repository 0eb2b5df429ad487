"""Tools the model may call: Python functions and the tools of MCP servers.

    from mlx_qwen3.tools import ToolBox, tool

    @tool
    def get_weather(city: str) -> str:
        "The weather now. city: the city's name"

    box = ToolBox([get_weather])

Importing this is light: pydantic is imported with the first `@tool`, the MCP SDK with `tools.mcp.MCPServers`.
"""

from mlx_qwen3.tools.approval import Answer, ApprovalRequest, Approvals, Choice, Decision, Question
from mlx_qwen3.tools.base import Tool, ToolError, ToolOutput
from mlx_qwen3.tools.function import FunctionTool, tool
from mlx_qwen3.tools.toolbox import ToolBox

__all__ = [
    "Answer",
    "ApprovalRequest",
    "Approvals",
    "Choice",
    "Decision",
    "FunctionTool",
    "Question",
    "Tool",
    "ToolBox",
    "ToolError",
    "ToolOutput",
    "tool",
]

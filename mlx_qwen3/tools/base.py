"""What every tool is to the rest of the package, wherever it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.errors import ToolError as ToolError

MAX_RESULT_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool gives back, as the model will read it. `is_error`: it failed, and `text` says how."""

    text: str
    is_error: bool = False

    def cut(self, limit: int) -> ToolOutput:
        """The same output in at most `limit` characters, and a note of how many are missing."""
        missing = len(self.text) - limit
        if missing <= 0:
            return self
        return ToolOutput(f"{self.text[:limit]}\n[cut here: {missing:,} more characters]", self.is_error)


@dataclass
class Tool(ABC):
    """Something the model may call.

    name: as the model calls it. description: what it does, for the model. parameters: JSON schema of
    an object. server: the MCP server it belongs to, None for a function. origin: where that server
    comes from (its command or address). annotations: what the tool claims about itself; shown to the
    person who approves, and never decides anything.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    server: str | None = None
    origin: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The tool's name among all tools there are: `server.name`, or `name` for a function."""
        return f"{self.server}.{self.name}" if self.server else self.name

    def definition(self, name: str | None = None) -> dict[str, Any]:
        """What the chat template gets: the tool under `name`, by default its own."""
        function = {
            "name": name or self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @abstractmethod
    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        """Run the tool. What goes wrong inside it is in the output; only cancelling raises."""

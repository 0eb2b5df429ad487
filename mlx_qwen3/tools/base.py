"""The interface of a tool and of its result, for Python functions and MCP tools alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.errors import ToolError as ToolError

MAX_RESULT_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The result of a tool as the model reads it. `is_error`: the tool failed, and `text` says why."""

    text: str
    is_error: bool = False

    def cut(self, limit: int) -> ToolOutput:
        """The same output with at most `limit` characters of its text, and a note of how many are missing."""
        missing = len(self.text) - limit
        if missing <= 0:
            return self
        return ToolOutput(f"{self.text[:limit]}\n[cut here: {missing:,} more characters]", self.is_error)


@dataclass
class Tool(ABC):
    """A tool the model may call.

    Args:
        name: The name the model calls it by.
        description: What the tool does, for the model.
        parameters: JSON schema of an object: the arguments.
        server: The name of the MCP server that offers the tool; None for a Python function.
        origin: The command or address of that server, as a person is shown it.
        identity: Everything that decides what runs behind the tool, secrets included: a hash. It is part of
            a permission and never shown.
        annotations: What the tool claims about itself (MCP's `readOnlyHint` and such). They are shown to
            the person who approves a call, and decide nothing.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    server: str | None = None
    origin: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)
    identity: str = field(default="", kw_only=True)

    @property
    def key(self) -> str:
        """The name used for permissions: `server.name`, or `name` for a function.

        A dot in the server's name or in that of a function is written as %2E, so two tools never share a key.
        """
        owner = (self.server or self.name).replace("%", "%25").replace(".", "%2E")
        return f"{owner}.{self.name}" if self.server else owner

    def definition(self, name: str | None = None) -> dict[str, Any]:
        """The tool as the chat template takes it, under `name` or its own name."""
        function = {
            "name": name or self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @abstractmethod
    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        """Run the tool. A failure is an output with `is_error`; only cancellation raises."""

"""Reads the `mcpServers` file people already have for Claude Desktop, Cursor or LM Studio.

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "a-server", "${HOME}/notes"], "env": {}},
                    "web": {"url": "https://example.com/mcp", "headers": {"X-Key": "${KEY}"}}}}

`${VAR}` and `${VAR:-default}` are filled in from the environment, `${env:VAR}` too. A server with
`"disabled": true` is left out. Keys unknown here are ignored, above all those that grant permission.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_qwen3.tools.base import ToolError

_VARIABLE = re.compile(r"\$\{(?:env:)?(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class ServerConfig:
    """One server: a command to run, or the address of one that runs.

    timeout: the seconds a call may take; start_timeout: those until the server is ready. origin: where
    it comes from, as the file spells it, so that no secret filled in is ever shown; by default the
    address or the command line.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 60.0
    start_timeout: float = 30.0
    origin: str = ""

    def __post_init__(self) -> None:
        if not self.origin:
            object.__setattr__(self, "origin", self.url or " ".join([self.command, *self.args]))


def load_config(file: str | Path, environment: Mapping[str, str] | None = None) -> list[ServerConfig]:
    """The servers of a configuration file. Raises ToolError, in one line, for what is wrong in it."""
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path} is not valid JSON: {error}") from error
    servers = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(servers, dict):
        raise ToolError(f'{path} has no "mcpServers" object')
    variables = os.environ if environment is None else environment
    reader = _Reader(path, variables)
    return [reader.server(name, entry) for name, entry in servers.items() if not _is_disabled(entry)]


def _is_disabled(entry: Any) -> bool:
    return isinstance(entry, dict) and (entry.get("disabled") is True or entry.get("enabled") is False)


@dataclass(frozen=True)
class _Reader:
    path: Path
    variables: Mapping[str, str]

    def server(self, name: str, entry: Any) -> ServerConfig:
        """One entry of `mcpServers`."""
        if not name or not isinstance(entry, dict):
            raise self._error(name, "is not an object")
        command, url = self._text(name, entry, "command"), self._text(name, entry, "url")
        if bool(command) == bool(url):
            raise self._error(name, 'needs either "command" or "url"')
        if entry.get("type") == "sse" or entry.get("transport") == "sse":
            raise self._error(name, "uses SSE, which is no longer supported; use its streamable HTTP address")
        if url and not url.startswith(("http://", "https://")):
            raise self._error(name, f'has the url "{url}", which is not http(s)')
        args = entry.get("args") or []
        if not isinstance(args, list):
            raise self._error(name, '"args" is not a list')
        return ServerConfig(
            name=name,
            command=command,
            args=tuple(self._expand(name, "args", item) for item in args),
            env=self._texts(name, entry, "env"),
            cwd=self._text(name, entry, "cwd") or None,
            url=url,
            headers=self._texts(name, entry, "headers"),
            timeout=self._seconds(name, entry, "timeout", ServerConfig.timeout),
            origin=str(entry.get("url") or " ".join(map(str, [entry["command"], *args]))),
        )

    def _text(self, name: str, entry: dict[str, Any], key: str) -> str:
        return self._expand(name, key, entry.get(key) or "")

    def _texts(self, name: str, entry: dict[str, Any], key: str) -> dict[str, str]:
        values = entry.get(key) or {}
        if not isinstance(values, dict):
            raise self._error(name, f'"{key}" is not an object')
        return {item: self._expand(name, f"{key}.{item}", value) for item, value in values.items()}

    def _seconds(self, name: str, entry: dict[str, Any], key: str, default: float) -> float:
        """Some programs write milliseconds: nobody waits a thousand seconds."""
        value = entry.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self._error(name, f'"{key}" is not a number of seconds')
        return value / 1000 if value >= 1000 else float(value)

    def _expand(self, name: str, key: str, value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self._error(name, f'"{key}" is not text')

        def variable(match: re.Match[str]) -> str:
            found = self.variables.get(match[1]) or match[2]
            if found is None:
                raise self._error(
                    name, f'"{key}" needs the environment variable {match[1]}, which is not set'
                )
            return found

        return _VARIABLE.sub(variable, value)

    def _error(self, name: str, problem: str) -> ToolError:
        return ToolError(f'{self.path}: server "{name}" {problem}'.replace(f'"{name}" "', f'"{name}": "'))

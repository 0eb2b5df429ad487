"""Reads the `mcpServers` file of Claude Desktop, Cursor or LM Studio.

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "a-server", "${HOME}/notes"], "env": {}},
                    "web": {"url": "https://example.com/mcp", "headers": {"X-Key": "${KEY}"}}}}

`${VAR}`, `${VAR:-default}` and `${env:VAR}` are replaced by environment variables. A server with
`"disabled": true` is left out. Unknown keys are ignored, above all those that grant permission.
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
    """One server: a command to run, or the address of a running server.

    Args:
        name: The server's name, unique in its file.
        command: The program to run as a child process, which speaks MCP on stdin and stdout.
        args: Its arguments.
        env: Environment variables for it, beside a few safe ones of our own (PATH, HOME and such).
        cwd: Its working directory.
        url: The http(s) address of a server that runs already, in place of `command`.
        headers: HTTP headers of every request to `url`.
        timeout: The seconds a call may take.
        start_timeout: The seconds until the server must be ready.
        origin: The address or command line as the file has it, before variables are filled in, so that no
            secret is shown. The default is `url`, or `command` with `args`.
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
    """Read a configuration file.

    Args:
        file: Path of a JSON file with an `mcpServers` object.
        environment: Variables to fill in; None for the environment of this process.

    Returns:
        The servers that are not disabled, in the order of the file.

    Raises:
        ToolError: The file cannot be read, or an entry is wrong.
    """
    if not isinstance(file, str | Path):
        raise ToolError(f"the configuration of MCP servers is a path, not {type(file).__name__}")
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
    reader = _EntryReader(path, os.environ if environment is None else environment)
    return [reader.server(name, entry) for name, entry in servers.items() if not _is_disabled(entry)]


def _is_disabled(entry: Any) -> bool:
    return isinstance(entry, dict) and (entry.get("disabled") is True or entry.get("enabled") is False)


@dataclass(frozen=True)
class _EntryReader:
    """Reads the entries of the file at `path`. `variables`: the values of `${VAR}`."""

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
        """A number of seconds. 1000 and more are taken as milliseconds, which some programs write."""
        value = entry.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self._error(name, f'"{key}" is not a number of seconds')
        return value / 1000 if value >= 1000 else float(value)

    def _expand(self, name: str, key: str, value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self._error(name, f'"{key}" is not text')

        def fill_in(match: re.Match[str]) -> str:
            value = self.variables.get(match[1]) or match[2]
            if value is None:
                raise self._error(
                    name, f'"{key}" needs the environment variable {match[1]}, which is not set'
                )
            return value

        return _VARIABLE.sub(fill_in, value)

    def _error(self, name: str, problem: str) -> ToolError:
        colon = ":" if problem.startswith('"') else ""  # before a key
        return ToolError(f'{self.path}: server "{name}"{colon} {problem}')

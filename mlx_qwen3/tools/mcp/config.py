"""Reads the `mcpServers` file of Claude Desktop, Cursor or LM Studio, and VS Code's with `servers`.

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "a-server", "${HOME}/notes"], "env": {}},
                    "web": {"url": "https://example.com/mcp", "headers": {"X-Key": "${KEY}"}}}}

`${VAR}`, `${VAR:-default}` and `${env:VAR}` are replaced by environment variables, `${workspaceFolder}` and
`${userHome}` by folders, and `${input:key}` by the default of that input. Comments and trailing commas are
allowed. A server with `"disabled": true` is left out. Unknown keys are ignored, above all those that grant
permission.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_qwen3.tools.base import ToolError

_VARIABLE = re.compile(
    r"\$\{(?:(?P<kind>input|command|config):(?P<key>[^{}]*)|(?:env:)?(?P<name>\w+)(?::-(?P<default>[^}]*))?)\}"
)
_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)
# The spellings of streamable HTTP; opencode writes "remote".
_HTTP_TYPES = ("http", "streamablehttp", "remote", "")
_URL_KEYS = ("httpUrl", "serverUrl", "url")  # Gemini CLI keeps the SSE address in `url` beside `httpUrl`


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
        problem: Why the server cannot be started, for an entry of the file that cannot be used.
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
    problem: str = ""

    def __post_init__(self) -> None:
        if not self.origin:
            object.__setattr__(self, "origin", self.url or _command_line([self.command, *self.args]))

    @property
    def full_origin(self) -> str:
        """The origin with the folder and the names of the variables and headers, for a person."""
        parts = {
            "in": [self.cwd] if self.cwd else [],
            "with the variables": self.env,
            "with the headers": self.headers,
        }
        named = (f"{words} {', '.join(names)}" for words, names in parts.items() if names)
        return "; ".join([self.origin, *named])

    @property
    def identity(self) -> str:
        """A hash of what is run or connected to, with all values filled in."""
        parts = [self.command, *self.args]
        # A relative path among them names another file in another folder.
        is_relative = any(part and not Path(part).is_absolute() and Path(part).exists() for part in parts)
        folder = str(Path(self.cwd or "").absolute()) if self.cwd or is_relative else ""
        values = [self.name, parts, dict(self.env), folder, self.url, dict(self.headers)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_config(file: str | Path, environment: Mapping[str, str] | None = None) -> list[ServerConfig]:
    """Read a configuration file.

    Args:
        file: Path of a JSON file with an `mcpServers` object.
        environment: Variables to fill in; None for the environment of this process.

    Returns:
        The servers that are not disabled, in the order of the file. One whose entry cannot be used has a
        `problem`; MCPServers reports it as failed and starts the others.

    Raises:
        ToolError: The file cannot be read, or none of its entries can be used.
    """
    if not isinstance(file, str | Path):
        raise ToolError(f"the configuration of MCP servers is a path, not {type(file).__name__}")
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        content = _parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path} is not valid JSON: {error}") from error
    content = content if isinstance(content, dict) else {}
    servers = _server_table(content)
    if servers is None:
        raise ToolError(f'{path} has no "mcpServers" or "servers" object')
    environment = os.environ if environment is None else environment
    reader = _EntryReader(path, environment, _input_defaults(content.get("inputs")))
    configs: list[ServerConfig] = []
    problems: list[str] = []
    for name, entry in servers.items():
        if _is_disabled(entry):
            continue
        try:
            configs.append(reader.server(name, entry))
        except _EntryError as error:
            colon = ":" if str(error).startswith('"') else ""  # before a key
            problems.append(f'{path}: server "{name}"{colon} {error}')
            problem = f"its entry in {path.name}{colon} {error}"
            configs.append(ServerConfig(name, origin=_written_origin(entry), problem=problem))
    if configs and len(problems) == len(configs):
        raise ToolError(problems[0])
    return configs


def _parse_json(text: str) -> Any:
    """JSON that may have comments and trailing commas."""
    try:
        return json.loads(text)
    except ValueError:
        # Blanks in their place keep the line and column of an error right.
        text = _COMMENT.sub(lambda match: match[0] if match[0][0] == '"' else _blank(match[0]), text)
        return json.loads(_TRAILING_COMMA.sub(lambda match: " " if match[0] == "," else match[0], text))


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _server_table(content: dict[str, Any]) -> dict[str, Any] | None:
    """`mcpServers`, VS Code's `servers`, or `mcp.servers` of an editor's settings."""
    settings = content.get("mcp")
    tables = [content.get("mcpServers"), content.get("servers")]
    if isinstance(settings, dict):
        tables.append(settings.get("servers"))
    return next((table for table in tables if isinstance(table, dict)), None)


def _input_defaults(inputs: Any) -> dict[str, str]:
    """VS Code's inputs that have a default: id -> default."""
    defaults: dict[str, str] = {}
    for entry in inputs if isinstance(inputs, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("default"), str):
            defaults[str(entry.get("id"))] = entry["default"]
    return defaults


def _command_line(parts: Sequence[object]) -> str:
    """A command and its arguments in one line; one with spaces or quotes, or an empty one, is quoted."""
    return " ".join(
        part if part and not re.search(r"[\s\"]", part) else json.dumps(part, ensure_ascii=False)
        for part in map(str, parts)
    )


def _is_disabled(entry: Any) -> bool:
    return isinstance(entry, dict) and (entry.get("disabled") is True or entry.get("enabled") is False)


def _written_origin(entry: Any) -> str:
    """The address or command line of an entry as the file has it."""
    if not isinstance(entry, dict):
        return ""
    url = next((entry[key] for key in _URL_KEYS if entry.get(key)), "")
    args = entry.get("args")
    return str(url) or _command_line([entry.get("command", ""), *(args if isinstance(args, list) else [])])


class _EntryError(Exception):
    """An entry that cannot be used. The message follows the server's name in a sentence."""


@dataclass(frozen=True)
class _EntryReader:
    """Reads entries of the file at `path`.

    variables: the values of `${VAR}`. inputs: the values of `${input:key}`.
    """

    path: Path
    variables: Mapping[str, str]
    inputs: Mapping[str, str]

    def server(self, name: str, entry: Any) -> ServerConfig:
        """One server. Raises _EntryError."""
        if not name or not isinstance(entry, dict):
            raise _EntryError("is not an object")
        command = self._text("command", entry.get("command"))
        url = next((self._text(key, entry[key]) for key in _URL_KEYS if entry.get(key)), "")
        if bool(command) == bool(url):
            raise _EntryError('needs either "command" or "url"')
        if url:
            self._check_address(entry, url)
        args = entry.get("args") or []
        if not isinstance(args, list):
            raise _EntryError('"args" is not a list')
        return ServerConfig(
            name=name,
            command=command,
            args=tuple(self._expand("args", item) for item in args),
            env=self._texts("env", entry),
            cwd=self._text("cwd", entry.get("cwd")) or None,
            url=url,
            headers=self._texts("headers", entry),
            timeout=self._seconds("timeout", entry, ServerConfig.timeout),
            origin=_written_origin(entry),
        )

    def _check_address(self, entry: dict[str, Any], url: str) -> None:
        for key in ("type", "transport", "transportType"):
            transport = entry.get(key) or ""
            if transport == "sse" and not entry.get("httpUrl"):
                raise _EntryError("uses SSE, which is no longer supported; use its streamable HTTP address")
            if str(transport).lower().replace("-", "").replace("_", "") not in (*_HTTP_TYPES, "sse"):
                raise _EntryError(f'has the type "{transport}", which is not supported')
        if not url.startswith(("http://", "https://")):
            raise _EntryError(f'has the url "{url}", which is not http(s)')

    def _text(self, key: str, value: Any) -> str:
        return self._expand(key, value or "")

    def _texts(self, key: str, entry: dict[str, Any]) -> dict[str, str]:
        values = entry.get(key) or {}
        if not isinstance(values, dict):
            raise _EntryError(f'"{key}" is not an object')
        return {item: self._expand(f"{key}.{item}", value) for item, value in values.items()}

    def _seconds(self, key: str, entry: dict[str, Any], default: float) -> float:
        """A number of seconds. 1000 and more are taken as milliseconds, which some programs write."""
        value = entry.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise _EntryError(f'"{key}" is not a number of seconds')
        return value / 1000 if value >= 1000 else float(value)

    def _expand(self, key: str, value: Any) -> str:
        """`value` with its variables filled in."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise _EntryError(f'"{key}" is not text')
        return _VARIABLE.sub(lambda match: self._variable(key, match), value)

    def _variable(self, key: str, match: re.Match[str]) -> str:
        if match["kind"] == "input" and match["key"] in self.inputs:
            return self.inputs[match["key"]]
        if match["kind"]:
            raise _EntryError(f'"{key}" needs {match[0]}, which only the editor can fill in; write the value')
        value = self.variables.get(match["name"]) or match["default"]
        if value is None and match["name"] == "workspaceFolder":
            folder = self.path.absolute().parent
            value = str(folder.parent if folder.name in (".vscode", ".cursor") else folder)
        if value is None and match["name"] == "userHome":
            value = self.variables.get("HOME") or str(Path.home())
        if value is None:
            raise _EntryError(f'"{key}" needs the environment variable {match["name"]}, which is not set')
        return value

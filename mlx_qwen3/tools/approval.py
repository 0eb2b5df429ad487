"""Permissions to call tools: given by a person, once or permanently.

Permanent permissions are kept in a file of the user, never in a project's folder, so a project cannot bring
its own. Each holds a fingerprint of the tool as it was shown (name, description, parameters) and of what
runs behind it (the server's command or address, folder, environment and headers, with variables filled in).
A tool that changed since, or that a trusted server added later, is asked about again. A tool's annotations
decide nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mlx_qwen3.files import file_lock, file_version, read_bytes, write_atomically
from mlx_qwen3.tools.approval_text import describe as describe
from mlx_qwen3.tools.approval_text import visible as visible
from mlx_qwen3.tools.base import Tool, ToolError

MAX_FILE_BYTES = 2**24


class Choice(StrEnum):
    """The answers a person may give to a Question."""

    ONCE = "once"
    TOOL = "tool"
    SERVER = "server"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer. The model is told `reason` when the call is denied."""

    choice: Choice
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may run. The model is told `reason` if it may not."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A call that waits for permission. `offered`: all offered tools, to allow a whole server."""

    tool: Tool
    arguments: dict[str, Any]
    offered: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A call as a person is asked about it.

    Attributes:
        is_new: The tool was never shown before. Show `describe(tool)` in full.
        has_changed: The tool was shown before and has changed since. Show `describe(tool)` in full.
        server_tools: The tools that Choice.SERVER would allow.
    """

    tool: Tool
    arguments: dict[str, Any]
    is_new: bool
    has_changed: bool
    server_tools: tuple[Tool, ...] = ()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The answers that apply: a Python function has no server to allow."""
        return tuple(choice for choice in Choice if choice is not Choice.SERVER or self.tool.server)


class Approvals:
    """Decides about calls: from permissions given before, from `allow`, or by asking.

    Args:
        file: Where permissions are kept; None keeps them in memory only.
        scope: What permissions are valid for: "user", or the path of a project's configuration.
        allow: Keys of tools (`server.tool`, or a function's name) that are allowed without asking.
        ask: Asks a person. With None, a call without permission is denied.
        on_denied: Called with each tool that was denied because `ask` is None.

    Raises:
        ToolError: The file cannot be read.
    """

    def __init__(
        self,
        file: str | Path | None = None,
        scope: str = "user",
        *,
        allow: Collection[str] = (),
        ask: Callable[[Question], Answer] | None = None,
        on_denied: Callable[[Tool], object] | None = None,
    ):
        if isinstance(allow, str):
            raise ToolError(f"allow is a list of tools' keys, not the text {allow!r}")
        self.file, self.scope = None if file is None else Path(file), scope
        self.allow, self.ask, self.on_denied = frozenset(allow), ask, on_denied
        self._scopes: _Scopes = {}
        self._version: object = None
        self._reload()

    def __call__(self, request: ApprovalRequest) -> Decision:
        """Decide about one call. Raises ToolError if permissions cannot be read or saved."""
        tool = request.tool
        if tool.key in self.allow or self.is_allowed(tool):
            return Decision(True)
        if self.ask is None:
            if self.on_denied:
                self.on_denied(tool)
            return Decision(False, "The user did not allow this tool call.")
        shown = self._fingerprints("shown").get(tool.key)
        has_changed = shown is not None and shown != _fingerprint(tool)
        server_tools = _server_tools(request)
        answer = self.ask(Question(tool, request.arguments, shown is None, has_changed, server_tools))
        self._remember(request, answer)
        if answer.choice is not Choice.DENY:
            return Decision(True)
        reason = f" They say: {answer.reason.strip()}" if answer.reason.strip() else ""
        return Decision(False, f"The user did not allow this tool call.{reason}")

    def is_allowed(self, tool: Tool) -> bool:
        """Whether the tool is allowed permanently and has not changed since."""
        self._reload()
        return self._fingerprints("allowed").get(tool.key) == _fingerprint(tool)

    def allowed(self) -> list[str]:
        """The keys of the tools that are allowed permanently in this scope, sorted."""
        self._reload()
        return sorted(self._fingerprints("allowed"))

    def forget(self, key: str | None = None) -> None:
        """Take back the permission of one tool, or of all. Their descriptions will be shown again."""
        with self._change():
            for kind in ("allowed", "shown"):
                fingerprints = self._fingerprints(kind)
                if key is None:
                    fingerprints.clear()
                else:
                    fingerprints.pop(key, None)

    def _remember(self, request: ApprovalRequest, answer: Answer) -> None:
        allowed: tuple[Tool, ...] = ()
        if answer.choice is Choice.TOOL:
            allowed = (request.tool,)
        elif answer.choice is Choice.SERVER and request.tool.server:
            allowed = (request.tool, *_server_tools(request))
        with self._change():
            self._fingerprints("shown")[request.tool.key] = _fingerprint(request.tool)
            self._fingerprints("allowed").update({tool.key: _fingerprint(tool) for tool in allowed})

    def _fingerprints(self, kind: str) -> dict[str, str]:
        """Tool key -> fingerprint of this scope; `kind` is "allowed" or "shown"."""
        return self._scopes.setdefault(self.scope, {}).setdefault(kind, {})

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Change the permissions of now in the block: other chats may have given or taken back some.

        The file is locked meanwhile, and readable by its owner only.
        """
        if self.file is None:
            yield
            return
        try:
            with file_lock(self.file.with_name(self.file.name + ".lock")):
                self._reload()
                yield
                write_atomically(self.file, json.dumps(self._scopes, indent=2) + "\n")
        except OSError as error:
            raise ToolError(f"cannot keep the permission in {self.file}: {error}") from error

    def _reload(self) -> None:
        """Read the file again if another chat has changed it."""
        if self.file is not None and (version := file_version(self.file)) != self._version:
            self._scopes, self._version = _load(self.file), version


_Scopes = dict[str, dict[str, dict[str, str]]]
"""Scope -> "allowed" or "shown" -> tool key -> fingerprint."""


def _server_tools(request: ApprovalRequest) -> tuple[Tool, ...]:
    """The offered tools of the server of the tool that is asked about; none for a function."""
    server = (request.tool.server, request.tool.identity)
    return tuple(tool for tool in request.offered if tool.server and (tool.server, tool.identity) == server)


def _fingerprint(tool: Tool) -> str:
    """A hash of everything about a tool that a person saw when allowing it, and of what runs behind it."""
    shown = [tool.key, tool.origin, tool.identity, tool.description, tool.parameters, dict(tool.annotations)]
    return hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()


def _load(file: Path) -> _Scopes:
    """The permissions in the file; none without a file."""
    try:
        scopes = json.loads(read_bytes(file, MAX_FILE_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ToolError(f"cannot read the permissions in {file} ({error}); correct or delete it") from error
    if not _is_well_formed(scopes):
        raise ToolError(f"the permissions in {file} are not in the format this program writes; delete it")
    return dict(scopes)


def _is_well_formed(scopes: Any) -> bool:
    """Whether `scopes` has three levels of dicts and then strings."""
    level = [scopes]
    for _ in range(3):
        if not all(isinstance(item, dict) for item in level):
            return False
        level = [value for item in level for value in item.values()]
    return all(isinstance(item, str) for item in level)

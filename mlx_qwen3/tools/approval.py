"""Permissions to call tools: given by a person, once or permanently.

Permanent permissions are kept in a file of the user, never in a project's folder, so a project cannot bring
its own. Each holds a fingerprint of the tool as it was shown (name, description, parameters, the server's
command or address). A tool that changed since, or that a trusted server added later, is asked about again.
A tool's annotations decide nothing.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mlx_qwen3.files import write_atomically
from mlx_qwen3.tools.base import Tool, ToolError


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
    """

    tool: Tool
    arguments: dict[str, Any]
    is_new: bool
    has_changed: bool

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
        self._scopes = _load(self.file)

    def __call__(self, request: ApprovalRequest) -> Decision:
        """Decide about one call. Raises ToolError if a permission cannot be saved."""
        tool = request.tool
        if tool.key in self.allow or self.is_allowed(tool):
            return Decision(True)
        if self.ask is None:
            if self.on_denied:
                self.on_denied(tool)
            return Decision(False, "The user did not allow this tool call.")
        shown = self._fingerprints("shown").get(tool.key)
        has_changed = shown is not None and shown != _fingerprint(tool)
        answer = self.ask(Question(tool, request.arguments, shown is None, has_changed))
        self._remember(request, answer.choice)
        if answer.choice is not Choice.DENY:
            return Decision(True)
        reason = f" They say: {answer.reason.strip()}" if answer.reason.strip() else ""
        return Decision(False, f"The user did not allow this tool call.{reason}")

    def is_allowed(self, tool: Tool) -> bool:
        """Whether the tool is allowed permanently and has not changed since."""
        return self._fingerprints("allowed").get(tool.key) == _fingerprint(tool)

    def allowed(self) -> list[str]:
        """The keys of the tools that are allowed permanently in this scope, sorted."""
        return sorted(self._fingerprints("allowed"))

    def forget(self, key: str | None = None) -> None:
        """Take back the permission of one tool, or of all. Their descriptions will be shown again."""
        for kind in ("allowed", "shown"):
            fingerprints = self._fingerprints(kind)
            if key is None:
                fingerprints.clear()
            else:
                fingerprints.pop(key, None)
        self._save()

    def _remember(self, request: ApprovalRequest, choice: Choice) -> None:
        tool = request.tool
        self._fingerprints("shown")[tool.key] = _fingerprint(tool)
        allowed: list[Tool] = []
        if choice is Choice.TOOL:
            allowed = [tool]
        elif choice is Choice.SERVER and tool.server:
            server = (tool.server, tool.origin)
            allowed = [tool, *(item for item in request.offered if (item.server, item.origin) == server)]
        self._fingerprints("allowed").update({item.key: _fingerprint(item) for item in allowed})
        self._save()

    def _fingerprints(self, kind: str) -> dict[str, str]:
        """Tool key -> fingerprint of this scope; `kind` is "allowed" or "shown"."""
        return self._scopes.setdefault(self.scope, {}).setdefault(kind, {})

    def _save(self) -> None:
        """Write the file, readable by its owner only."""
        if self.file is None:
            return
        try:
            write_atomically(self.file, json.dumps(self._scopes, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ToolError(f"cannot keep the permission in {self.file}: {error}") from error


def _fingerprint(tool: Tool) -> str:
    """A hash of everything about a tool that a person saw when allowing it."""
    shown = [tool.key, tool.origin, tool.description, tool.parameters, dict(tool.annotations)]
    return hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()


def describe(tool: Tool) -> str:
    """A tool in full, for a person. Nothing in the text can hide, move the cursor or reverse the text."""
    lines = [
        tool.key + (f"   ({tool.origin})" if tool.origin else ""),
        tool.description or "(no description)",
        "Parameters: " + json.dumps(tool.parameters, ensure_ascii=False),
    ]
    if tool.annotations:
        annotations = json.dumps(dict(tool.annotations), ensure_ascii=False, default=str)
        lines.append(f"It says of itself: {annotations}")
    return "\n".join(map(visible, lines))


def visible(text: str) -> str:
    """`text` with control, formatting and invisible characters spelled out. Line breaks and tabs stay."""
    return "".join(char if _is_visible(char) else f"<U+{ord(char):04X}>" for char in text)


def _is_visible(char: str) -> bool:
    return char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def _load(file: Path | None) -> dict[str, dict[str, dict[str, str]]]:
    """Scope -> "allowed" or "shown" -> tool key -> fingerprint."""
    if file is None or not file.exists():
        return {}
    try:
        scopes = json.loads(file.read_text(encoding="utf-8"))
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

"""Who allowed what: every call of a tool is allowed by a person, once or for good.

What was allowed for good is kept in a file of the user's own, never in a project's folder: a project
cannot bring its own permissions. Each permission holds a fingerprint of the tool as it was shown (name,
description, parameters, server's command or address). A tool that has changed since is asked about
again, and so is one a trusted server adds later. What a tool says of itself decides nothing.
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

from mlx_qwen3.atomic_write import write_atomically
from mlx_qwen3.tools.base import Tool, ToolError


class Choice(StrEnum):
    """What a person may answer."""

    ONCE = "once"
    TOOL = "tool"
    SERVER = "server"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer. `reason` is told to the model when the call is denied."""

    choice: Choice
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may run, and what the model is told if it may not."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A call waiting for permission. `offered`: all tools there are, for permissions of a whole server."""

    tool: Tool
    arguments: dict[str, Any]
    offered: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked. `is_new`: the tool was never shown before. `has_changed`: it was, and is
    not what it was. In both cases `describe(tool)` is to be shown in full."""

    tool: Tool
    arguments: dict[str, Any]
    is_new: bool
    has_changed: bool

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The answers that make sense."""
        return tuple(choice for choice in Choice if choice is not Choice.SERVER or self.tool.server)


class Approvals:
    """Decides about calls: from what was allowed before, from `allow`, or by asking.

    file: where permissions are kept, None to keep them for this run only. scope: what they hold for:
    "user", or the path of a project's configuration. allow: keys of tools (`server.tool`) allowed
    without asking. ask: asks a person; None where there is nobody, and then what is not allowed is
    denied. tell: gets one line for the person on each such denial.
    Raises ToolError if the file cannot be read.
    """

    def __init__(
        self,
        file: Path | None = None,
        scope: str = "user",
        *,
        allow: Collection[str] = (),
        ask: Callable[[Question], Answer] | None = None,
        tell: Callable[[str], None] | None = None,
    ):
        self.file, self.scope = file, scope
        self.allow, self.ask, self.tell = frozenset(allow), ask, tell
        self._scopes = _load(file)

    def __call__(self, request: ApprovalRequest) -> Decision:
        """Decide about one call."""
        tool = request.tool
        if tool.key in self.allow or self.is_allowed(tool):
            return Decision(True)
        if self.ask is None:
            if self.tell:
                self.tell(f"{tool.key} was denied: nobody is here to ask; allow it with --allow {tool.key}")
            return Decision(False, "The user did not allow this tool call.")
        shown = self._entry("shown").get(tool.key)
        question = Question(tool, request.arguments, shown is None, shown not in (None, fingerprint(tool)))
        return self._remember(request, self.ask(question))

    def is_allowed(self, tool: Tool) -> bool:
        """It was allowed for good, and is still what it was then."""
        return self._entry("allowed").get(tool.key) == fingerprint(tool)

    def allowed(self) -> list[str]:
        """The keys of the tools allowed for good in this scope."""
        return sorted(self._entry("allowed"))

    def forget(self, key: str | None = None) -> None:
        """Take back the permission of a tool, or of all of them; their descriptions will be shown again."""
        for kind in ("allowed", "shown"):
            keys = self._entry(kind)
            for name in [key] if key else list(keys):
                keys.pop(name, None)
        self._save()

    def _remember(self, request: ApprovalRequest, answer: Answer) -> Decision:
        tool = request.tool
        self._entry("shown")[tool.key] = fingerprint(tool)
        allowed: list[Tool] = []
        if answer.choice is Choice.TOOL:
            allowed = [tool]
        elif answer.choice is Choice.SERVER and tool.server:
            allowed = [tool, *(other for other in request.offered if _same_server(other, tool))]
        self._entry("allowed").update({other.key: fingerprint(other) for other in allowed})
        self._save()
        if answer.choice is not Choice.DENY:
            return Decision(True)
        said = f" They say: {answer.reason.strip()}" if answer.reason.strip() else ""
        return Decision(False, f"The user did not allow this tool call.{said}")

    def _entry(self, kind: str) -> dict[str, str]:
        return self._scopes.setdefault(self.scope, {}).setdefault(kind, {})

    def _save(self) -> None:
        if self.file is not None:
            _write(self.file, json.dumps(self._scopes, indent=2, ensure_ascii=False) + "\n")


def fingerprint(tool: Tool) -> str:
    """A hash of everything about a tool that a person saw when allowing it."""
    seen = [tool.key, tool.origin, tool.description, tool.parameters, dict(tool.annotations)]
    return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()


def describe(tool: Tool) -> str:
    """All of a tool, for a person: nothing in it can hide, move the cursor or reverse the text."""
    lines = [
        tool.key + (f"   ({tool.origin})" if tool.origin else ""),
        tool.description or "(no description)",
    ]
    lines.append("Parameters: " + json.dumps(tool.parameters, ensure_ascii=False))
    if tool.annotations:
        lines.append(
            "It says of itself: " + json.dumps(dict(tool.annotations), ensure_ascii=False, default=str)
        )
    return "\n".join(map(visible, lines))


def visible(text: str) -> str:
    """`text` with control, formatting and invisible characters spelled out; line breaks and tabs stay."""
    return "".join(char if _is_visible(char) else f"<U+{ord(char):04X}>" for char in text)


def _is_visible(char: str) -> bool:
    return char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def _same_server(other: Tool, tool: Tool) -> bool:
    return other.server == tool.server and other.origin == tool.origin


def _load(file: Path | None) -> dict[str, dict[str, dict[str, str]]]:
    if file is None or not file.exists():
        return {}
    try:
        scopes = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ToolError(f"cannot read the permissions in {file} ({error}); correct or delete it") from error
    if not _is_well_formed(scopes):
        raise ToolError(f"the permissions in {file} are not in the form this program writes; delete it")
    return dict(scopes)


def _is_well_formed(scopes: Any) -> bool:
    """scope -> "allowed" or "shown" -> tool's key -> fingerprint"""
    if not isinstance(scopes, dict):
        return False
    kinds = [
        kind for scope in scopes.values() for kind in (scope.values() if isinstance(scope, dict) else [None])
    ]
    return all(isinstance(kind, dict) and all(isinstance(v, str) for v in kind.values()) for kind in kinds)


def _write(file: Path, text: str) -> None:
    """Replace `file` at once, readable by its owner only."""
    try:
        write_atomically(file, text)
    except OSError as error:
        raise ToolError(f"cannot keep the permission in {file}: {error}") from error

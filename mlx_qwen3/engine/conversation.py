"""What was said, apart from any model: the messages of a session, on disk and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.errors import MessageError
from mlx_qwen3.files import read_json_object, write_atomically
from mlx_qwen3.tokenizer.messages import Message, check_messages, without_surrogates

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = "mlx_qwen3 conversation"
VERSION = 1
SUMMARISE = (
    "Summarise our conversation so far for your own use: what I want, what was decided, and every name, "
    "number, file and open question that matters. Write the summary alone."
)
SUMMARY = "A summary of our conversation so far:\n\n{}"
GO_ON = "Thank you. Let us go on from there."
TITLE_WORDS, TITLE_LENGTH = 8, 60
MAX_FILE_BYTES = 2**26


@dataclass
class Conversation:
    """Messages, oldest first, as chat templates take them: dicts with `role` and `content`.

    given_title: a title to keep whatever becomes of the messages.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    given_title: str = ""

    @property
    def system(self) -> str | None:
        """The system message, if there is one."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[0 if self.system is None else 1 :]
        self.messages = [{"role": "system", "content": without_surrogates(text)}, *rest] if text else rest

    @property
    def title(self) -> str:
        """A name for lists: the title given, or what the user said first."""
        first = next((m["content"] for m in self.messages if m["role"] == "user"), "")
        return self.given_title or _title(first)

    def clear(self) -> None:
        """Forget everything but the system message."""
        del self.messages[0 if self.system is None else 1 :]
        self.given_title = ""

    def take_back(self) -> str:
        """Undo the latest turn and return what the user had said. Raises MessageError if there is none."""
        turns = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not turns:
            raise MessageError("nothing was said yet")
        text: str = self.messages[turns[-1]]["content"]
        del self.messages[turns[-1] :]
        return text

    def go_on_from(self, summary: str) -> None:
        """Have a summary stand for all that was said but the system message, under the same title."""
        self.given_title = self.title
        told = {"role": "user", "content": SUMMARY.format(summary)}
        self.messages = [
            *self.messages[: 0 if self.system is None else 1],
            told,
            {"role": "assistant", "content": GO_ON},
        ]

    def last_answer(self) -> str:
        """The latest answer. Raises MessageError if there is none."""
        answers = [m["content"] for m in self.messages if m["role"] == "assistant"]
        if not answers:
            raise MessageError("there is no answer yet")
        return str(answers[-1])

    def branch(self) -> Conversation:
        """A copy that goes its own way from here."""
        return Conversation(copy.deepcopy(self.messages), self.given_title)

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write the conversation and the session's `settings` as JSON; a killed save leaves the old file.

        Raises MessageError naming the file if it cannot be written.
        """
        content = {
            "format": FORMAT,
            "version": VERSION,
            "title": self.title,
            "settings": dict(settings),
            "messages": self.messages,
        }
        try:
            write_atomically(path, json.dumps(without_surrogates(content), ensure_ascii=False, indent=1))
        except OSError as error:
            raise MessageError(f"{path} cannot be written: {error.strerror or error}") from None

    @classmethod
    def load(cls, path: Path) -> tuple[Conversation, dict[str, Any]]:
        """A saved conversation and its settings.

        Raises MessageError naming the file if it is missing, broken or something else.
        """
        content = read_json_object(path, MessageError, limit=MAX_FILE_BYTES)
        if content.get("format") != FORMAT:
            raise MessageError(f"{path} is not a saved conversation")
        if content.get("version") != VERSION:
            raise MessageError(f"{path} was saved by another version of mlx_qwen3; it cannot be read")
        saved = _checked(content, path)
        messages: list[Message] = saved["messages"]
        check_messages(messages)
        conversation = cls([dict(message) for message in messages])
        if saved["title"] != conversation.title:
            conversation.given_title = saved["title"]
        return conversation, saved["settings"]


def _checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A saved conversation whose values are all of the kinds that `save` writes. Raises MessageError."""
    from pydantic import ValidationError

    try:
        return dict(_schema().validate_python(content, strict=True))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise MessageError(f"{path} is not a saved conversation: {place}: {first['msg']}") from None


@cache
def _schema() -> TypeAdapter[Any]:
    """What a file must hold. Made when first needed, as pydantic takes a while to import."""
    from typing import NotRequired

    from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, with_config
    from typing_extensions import TypedDict  # which pydantic needs before Python 3.12

    @with_config(ConfigDict(extra="allow"))
    class Settings(TypedDict):
        thinking: NotRequired[bool]
        thinking_budget: NotRequired[NonNegativeInt | None]
        sampling: NotRequired[dict[str, Any] | None]
        model: NotRequired[str | None]

    @with_config(ConfigDict(extra="ignore"))
    class Saved(TypedDict):
        title: str
        settings: Settings
        messages: list[dict[str, Any]]

    return TypeAdapter(Saved)


def _title(text: str) -> str:
    """The first words of `text`; of a document with a question after it, its name and the question."""
    lines = [line for line in map(_plain, text.splitlines()) if line] or [""]
    title = f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    words = title.split()
    short = " ".join(words[:TITLE_WORDS])[:TITLE_LENGTH].rstrip()
    return short if short == " ".join(words) else f"{short} ..."


def _plain(line: str) -> str:
    """A line without the marks of Markdown around it."""
    return line.strip().strip("#*_`>").strip()

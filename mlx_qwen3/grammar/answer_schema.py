"""The schema an answer is held to, and the answer as a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import SchemaError
from mlx_qwen3.grammar.matcher import one_line, schema_problem
from mlx_qwen3.tokenizer.messages import Message, check_messages

INSTRUCTION = "{}\n\nAnswer with JSON alone, in the form that this JSON schema describes:\n{}"


@dataclass(frozen=True)
class AnswerSchema:
    """A JSON schema, and how an answer in its form becomes a value. Make it with `of` or `read`."""

    schema: dict[str, Any]
    _load: Callable[[str], Any]

    @classmethod
    def of(cls, schema: Any) -> AnswerSchema:
        """From a JSON schema as a mapping, a pydantic model, or any type pydantic can check.

        Raises SchemaError if no grammar can be made of it.
        """
        if isinstance(schema, Mapping):
            return cls._checked(dict(schema), json.loads)
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        try:
            adapter: TypeAdapter[Any] = TypeAdapter(schema)
            return cls._checked(adapter.json_schema(), adapter.validate_json)
        except PydanticUserError as error:
            raise SchemaError(f"no JSON schema can be made of {schema!r}: {one_line(error)}") from None

    @classmethod
    def of_any(cls, schema: Any) -> AnswerSchema | None:
        """`of`, for what may be None or made already."""
        return schema if schema is None or isinstance(schema, cls) else cls.of(schema)

    @classmethod
    def read(cls, file: Path) -> AnswerSchema:
        """From a file. Raises SchemaError naming it if it is missing, no JSON, or no usable schema."""
        try:
            schema = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SchemaError(f"{file} cannot be read: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"{file} is not JSON: {error}") from None
        if not isinstance(schema, dict):
            raise SchemaError(f"{file} is not a JSON schema: it must hold an object, such as {{...}}")
        try:
            return cls.of(schema)
        except SchemaError as error:
            raise SchemaError(f"{file}: {error}") from None

    @classmethod
    def _checked(cls, schema: dict[str, Any], load: Callable[[str], Any]) -> AnswerSchema:
        if problem := schema_problem(schema):
            raise SchemaError(f"this schema cannot be used: {problem}")
        return cls(schema, load)

    def asking(self, messages: Sequence[Message]) -> list[Message]:
        """`messages` with the latest of the user's asking for this form as well.

        A model that is only held to a schema it was never shown fills the form with whatever comes to its
        mind. The request is part of no conversation: what comes next may be asked for in another form.
        Raises SchemaError if the user said nothing, MessageError for what is no conversation.
        """
        messages = check_messages(messages)
        said = [place for place, message in enumerate(messages) if message["role"] == "user"]
        if not said:
            raise SchemaError("an answer in a form needs a message of the user to answer")
        latest = messages[said[-1]]
        text = INSTRUCTION.format(latest["content"], json.dumps(self.schema, ensure_ascii=False))
        return [*messages[: said[-1]], {**latest, "content": text}, *messages[said[-1] + 1 :]]

    def parse(self, answer: str) -> Any:
        """The value of a whole answer; None for one that was cut off.

        Raises SchemaError if a pydantic model's own checks, which no grammar can know, refuse it.
        """
        try:
            json.loads(answer)
        except ValueError:
            return None
        try:
            return self._load(answer)
        except ValueError as error:
            raise SchemaError(
                f"the answer has the form of the schema, but was refused: {one_line(error)}"
            ) from None

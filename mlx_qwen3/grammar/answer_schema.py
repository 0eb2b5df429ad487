"""The schema of an answer, and the answer as a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import SchemaError, one_line
from mlx_qwen3.files import read_json_object
from mlx_qwen3.grammar.compilable_schema import unwrap
from mlx_qwen3.grammar.matcher import schema_problem
from mlx_qwen3.tokenizer.messages import Message, check_messages

INSTRUCTION = "{}\n\nAnswer with JSON alone, in the form that this JSON schema describes:\n{}"


@dataclass(frozen=True)
class AnswerSchema:
    """A JSON schema, and how an answer becomes a value. Make it with `of` or `read`."""

    schema: dict[str, Any]
    _load: Callable[[str], Any]

    @classmethod
    def of(cls, schema: Any) -> AnswerSchema:
        """Make it from a schema or a type.

        Args:
            schema: A JSON schema as a mapping, also in OpenAI's wrapper `{"name", "strict", "schema"}`; a
                pydantic model, or any type that pydantic can check.

        Raises:
            SchemaError: It cannot become a grammar, or the extra `grammar` is not installed.
        """
        if isinstance(schema, Mapping):
            return cls._checked(dict(unwrap(schema)), json.loads)
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        try:
            adapter: TypeAdapter[Any] = TypeAdapter(schema)
            return cls._checked(adapter.json_schema(), adapter.validate_json)
        except PydanticUserError as error:
            raise SchemaError(f"no JSON schema can be made of {schema!r}: {one_line(error)}") from None

    @classmethod
    def of_any(cls, schema: Any) -> AnswerSchema | None:
        """`of`, but None and an AnswerSchema are returned as they are."""
        return schema if schema is None or isinstance(schema, cls) else cls.of(schema)

    @classmethod
    def read(cls, file: str | Path) -> AnswerSchema:
        """Read a JSON schema from a file.

        Args:
            file: The path of a JSON file that holds the schema.

        Raises:
            SchemaError: The file is missing or is not JSON, or its schema cannot become a grammar.
                The message names the file.
        """
        schema = read_json_object(Path(file), SchemaError)
        try:
            return cls.of(schema)
        except SchemaError as error:
            raise SchemaError(f"{file}: {error}") from None

    @classmethod
    def _checked(cls, schema: dict[str, Any], load: Callable[[str], Any]) -> AnswerSchema:
        if problem := schema_problem(schema):
            raise SchemaError(f"this schema cannot be used: {problem}")
        return cls(schema, load)

    def add_to(self, messages: Sequence[Message]) -> list[Message]:
        """`messages`, with the schema appended to the last user message.

        A model that is constrained to a schema which it was not shown fills in arbitrary values. The
        conversation itself keeps its message as it was: the next answer may have another schema.

        Raises SchemaError if there is no user message, MessageError for messages that are not valid.
        """
        messages = check_messages(messages)
        user_messages = [index for index, message in enumerate(messages) if message["role"] == "user"]
        if not user_messages:
            raise SchemaError("an answer with a schema needs a message of the user to answer")
        last = user_messages[-1]
        schema = json.dumps(self.schema, ensure_ascii=False)
        text = INSTRUCTION.format(messages[last]["content"], schema)
        return [*messages[:last], {**messages[last], "content": text}, *messages[last + 1 :]]

    def parse(self, answer: str) -> Any:
        """The value of an answer.

        Args:
            answer: The text of the answer.

        Returns:
            An instance of the type that `of` was given, or the JSON value for a JSON schema. None for an
            answer that is not complete.

        Raises:
            SchemaError: A pydantic model's own checks, which a grammar cannot express, refused the answer.
        """
        try:
            json.loads(answer)
        except ValueError:
            return None
        try:
            return self._load(answer)
        except ValueError as error:
            raise SchemaError(
                f"the answer matches the schema, but its model refused it: {one_line(error)}"
            ) from None

"""From a Python function's signature and docstring to the JSON schema the model is shown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from mlx_qwen3.tools.base import ToolError

if TYPE_CHECKING:
    from pydantic import BaseModel

_HEADING = re.compile(r"(Args|Arguments|Parameters):$")
_END = re.compile(r"(Returns?|Raises|Yields|Examples?|Notes?):|:returns?:|:raises")
_ENTRY = re.compile(r"(?::param )?\s*(\w+)\s*(?:\([^)]*\))?:\s*(.*)")


def read_docstring(text: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter.

    A parameter is described by a line `name: text`, `name (type): text` or `:param name: text`, and by
    the lines indented below it.
    """
    about: list[str] = []
    entries: dict[str, list[str]] = {}
    current: tuple[str, int] | None = None
    for line in inspect.cleandoc(text).splitlines():
        stripped, indent = line.strip(), len(line) - len(line.lstrip())
        entry = _ENTRY.match(stripped)
        if _END.match(stripped):
            break
        if entry and entry[1] in names:
            current = (entry[1], indent)
            entries[entry[1]] = [entry[2]]
        elif current and stripped and indent > current[1]:
            entries[current[0]].append(stripped)
        elif not _HEADING.match(stripped):
            current = None
            about.append(line)
    return "\n".join(about).strip(), {name: " ".join(lines).strip() for name, lines in entries.items()}


def arguments_model(function: Callable[..., Any], docs: dict[str, str]) -> type[BaseModel]:
    """A pydantic model of the function's arguments, each field under its parameter's name as alias.

    Raises ToolError for a parameter without a type, or that cannot be given by name.
    """
    from pydantic import ConfigDict, Field, create_model
    from pydantic.errors import PydanticUserError

    name = getattr(function, "__name__", "tool")
    fields: dict[str, Any] = {}
    for number, (parameter, annotation) in enumerate(_parameters(function, name)):
        default = ... if parameter.default is parameter.empty else parameter.default
        annotation, description = _described(annotation, docs.get(parameter.name))
        fields[f"argument_{number}"] = (
            annotation,
            Field(default, alias=parameter.name, description=description),
        )
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticUserError, TypeError, ValueError) as error:
        raise ToolError(f"tool {name}: {str(error).splitlines()[0]}") from error


def _parameters(function: Callable[..., Any], name: str) -> list[tuple[inspect.Parameter, Any]]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ToolError(f"tool {name}: a type cannot be read: {error}") from error
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolError(f"tool {name}: parameter {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise ToolError(f"tool {name}: parameter {parameter.name} has no type")
        found.append((parameter, hints[parameter.name]))
    return found


def _described(annotation: Any, description: str | None) -> tuple[Any, str | None]:
    """`Annotated[type, "text"]` describes a parameter too."""
    if get_origin(annotation) is Annotated:
        texts = [extra for extra in get_args(annotation)[1:] if isinstance(extra, str)]
        description = texts[0] if texts else description
    return annotation, description


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema without the titles pydantic adds and, where possible, without references."""
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        schema = model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise ToolError(f"tool {model.__name__}: {str(error).splitlines()[0]}") from error
    definitions = schema.pop("$defs", {})
    plain: dict[str, Any] = _inlined(schema, definitions, ())
    if "#/$defs/" in str(plain):
        plain["$defs"] = {name: _inlined(entry, {}, ()) for name, entry in definitions.items()}
    plain.pop("additionalProperties")  # checked all the same, and the model need not read it
    return {"type": "object", "properties": plain.pop("properties", {})} | plain


def _inlined(schema: Any, definitions: dict[str, Any], inside: tuple[str, ...]) -> Any:
    """`schema` with each reference replaced by what it names, but for a type that contains itself."""
    if isinstance(schema, list):
        return [_inlined(item, definitions, inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions and name not in inside:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined(definitions[name] | rest, definitions, (*inside, name))
    plain = {"type": schema["type"]} if "type" in schema else {}  # comes first, as people write it
    for key, value in schema.items():
        if key == "properties":  # where `title` would be a parameter's name
            plain[key] = {name: _inlined(entry, definitions, inside) for name, entry in value.items()}
        elif key != "title" or not isinstance(value, str):
            plain[key] = _inlined(value, definitions, inside)
    return plain

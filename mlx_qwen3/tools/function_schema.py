"""The JSON schema and the descriptions of a tool, from a Python function's signature and docstring."""

from __future__ import annotations

import functools
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


class CallableInfo:
    """The name, docstring, types and parameters of a function, `functools.partial` or callable object.

    Arguments bound by a partial are no parameters: they are not the model's to see or choose.
    """

    def __init__(self, function: Callable[..., Any]):
        self.name = getattr(function, "__name__", "")
        docs = [vars(function).get("__doc__")] if isinstance(function, functools.partial) else []
        bound: set[str] = set()
        target = function
        while isinstance(target, functools.partial):
            bound |= target.keywords.keys()
            target = target.func
        self.name = self.name or getattr(target, "__name__", "") or type(target).__name__
        if not (inspect.isroutine(target) or inspect.isclass(target) or hasattr(target, "__wrapped__")):
            docs += [type(target).__call__.__doc__]
            self._typed = type(target).__call__
        else:
            self._typed = target
        docs += [target.__doc__]
        self.docstring = next((text for text in docs if text), "")
        try:
            parameters = inspect.signature(function).parameters.values()
            # The docstring's lines about bound parameters are left out of the description, too.
            self.documented_names = bound | set(inspect.signature(self._typed).parameters)
        except (TypeError, ValueError) as error:
            raise ToolError(f"tool {self.name}: its parameters cannot be read: {error}") from error
        self._parameters = [parameter for parameter in parameters if parameter.name not in bound]

    def typed_parameters(self) -> list[tuple[inspect.Parameter, Any]]:
        """Each parameter with its type. Raises ToolError if it has none, or cannot be passed by name."""
        try:
            hints = get_type_hints(self._typed, include_extras=True)
        except (NameError, TypeError) as error:
            raise ToolError(f"tool {self.name}: a type cannot be read: {error}") from error
        for parameter in self._parameters:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ToolError(f"tool {self.name}: parameter {parameter} cannot be given by name")
            if parameter.name not in hints:
                raise ToolError(f"tool {self.name}: parameter {parameter.name} has no type")
        return [(parameter, hints[parameter.name]) for parameter in self._parameters]


def read_docstring(text: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """The function's description, and the description of each parameter in `names`.

    A line `name: text`, `name (type): text` or `:param name: text` describes a parameter, with the lines
    indented below it.
    """
    description: list[str] = []
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
            description.append(line)
    parameters = {name: " ".join(lines).strip() for name, lines in entries.items()}
    return "\n".join(description).strip(), parameters


def arguments_model(function: CallableInfo, docs: dict[str, str]) -> type[BaseModel]:
    """A pydantic model of the function's arguments. The alias of a field is the parameter's name.

    Fields are numbered: pydantic refuses names that a parameter may have (`_private`, `model_config`).
    Raises ToolError for a parameter without a type, or one that cannot be passed by name.
    """
    from pydantic import ConfigDict, Field, create_model
    from pydantic.errors import PydanticUserError

    fields: dict[str, Any] = {}
    for number, (parameter, annotation) in enumerate(function.typed_parameters()):
        default = ... if parameter.default is parameter.empty else parameter.default
        annotation, description = _split_annotated(annotation, docs.get(parameter.name))
        fields[f"argument_{number}"] = (
            annotation,
            Field(default, alias=parameter.name, description=description),
        )
    try:
        return create_model(function.name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticUserError, TypeError, ValueError) as error:
        raise ToolError(f"tool {function.name}: {str(error).splitlines()[0]}") from error


def _split_annotated(annotation: Any, description: str | None) -> tuple[Any, str | None]:
    """The type and the description of a parameter. The text of `Annotated[type, "text"]` goes first."""
    if get_origin(annotation) is Annotated:
        texts = [extra for extra in get_args(annotation)[1:] if isinstance(extra, str)]
        description = texts[0] if texts else description
    return annotation, description


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without pydantic's titles, and without references to types that are not recursive."""
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        schema = model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise ToolError(f"tool {model.__name__}: {str(error).splitlines()[0]}") from error
    definitions = schema.pop("$defs", {})
    plain: dict[str, Any] = _inlined(schema, definitions, ())
    if "#/$defs/" in str(plain):
        plain["$defs"] = {name: _inlined(entry, {}, ()) for name, entry in definitions.items()}
    plain.pop("additionalProperties")  # arguments are checked against it, but it would only cost tokens
    return {"type": "object", "properties": plain.pop("properties", {})} | plain


def _inlined(schema: Any, definitions: dict[str, Any], inside: tuple[str, ...]) -> Any:
    """`schema` with each reference replaced by its definition, except inside that definition."""
    if isinstance(schema, list):
        return [_inlined(item, definitions, inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions and name not in inside:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined(definitions[name] | rest, definitions, (*inside, name))
    plain = {"type": schema["type"]} if "type" in schema else {}  # first, as in schemas written by hand
    for key, value in schema.items():
        if key == "properties":  # here "title" is the name of a parameter
            plain[key] = {name: _inlined(entry, definitions, inside) for name, entry in value.items()}
        elif key != "title" or not isinstance(value, str):
            plain[key] = _inlined(value, definitions, inside)
    return plain

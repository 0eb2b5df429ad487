"""The tools and the tool_choice of the Responses API as OpenAI's chat form has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.server.errors import bad_request
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.request import ToolChoice

MAX_TOOLS = 1024


@dataclass(frozen=True)
class OfferedTools:
    """The tools of a request.

    Attributes:
        functions: In the form of `ServerRequest.tools`.
        namespaces: Name of a function -> the namespace it was listed in, if it was.
        listed: As the response lists them: what was read of them, and no more. A web search, which this
            server cannot do, is not among them.
    """

    functions: list[dict[str, Any]] = field(default_factory=list)
    namespaces: dict[str, str] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)


def read_tools(fields: Fields) -> OfferedTools:
    """The field `tools`. Raises RequestError for tools that OpenAI's servers run."""
    tools = OfferedTools()
    for index, value in enumerate(fields.list("tools", [], most=MAX_TOOLS)):
        tool = Fields(value, fields.where(f"tools[{index}]"))
        kind = tool.text("type")
        if kind == "function":
            tools.listed.append(_function(tool, tools))
        elif kind == "namespace":
            tools.listed.append(_namespace(tool, tools))
        elif not (kind or "").startswith("web_search"):
            # Codex offers its web search always. Left out, it is one that the model does not choose.
            raise bad_request(
                f"{tool.where('type')} {kind!r:.60} cannot be run here; give tools of type function",
                tool.where("type"),
                "unsupported_tool",
            )
    _refuse_same_names(tools.functions)
    return tools


def _namespace(fields: Fields, tools: OfferedTools) -> dict[str, Any]:
    space, listed = fields.text("name", ""), []
    description = fields.text("description", "")
    for index, value in enumerate(fields.list("tools", [], most=MAX_TOOLS)):
        inner = Fields(value, fields.where(f"tools[{index}]"))
        if inner.choice("type", ["function"]) is None:
            raise inner.error("type", "is missing")
        listed.append(_function(inner, tools))
        tools.namespaces[listed[-1]["name"]] = space
    fields.finish()
    return {"type": "namespace", "name": space, "description": description, "tools": listed}


def _function(fields: Fields, tools: OfferedTools) -> dict[str, Any]:
    """Offer a function; returns how it is listed."""
    name = fields.text("name")
    if not name:
        raise fields.error("name", "is missing")
    description, parameters = fields.text("description"), fields.mapping("parameters")
    strict = fields.flag("strict")  # arguments follow the schema in any case
    fields.only("defer_loading", False)
    fields.only("allowed_callers", ["direct"])
    fields.skip("output_schema")
    fields.finish()
    function = {
        "name": name,
        "description": description or "",
        "parameters": {"type": "object", "properties": {}} if parameters is None else parameters,
    }
    tools.functions.append({"type": "function", "function": function})
    listed = {"type": "function", "name": name, "parameters": parameters, "strict": strict}
    return listed if description is None else {**listed, "description": description}


def _refuse_same_names(functions: Sequence[Mapping[str, Any]]) -> None:
    names = [function["function"]["name"] for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise bad_request(f"tools has two functions of the name {name!r:.60}", "tools")


def read_tool_choice(
    fields: Fields, tools: OfferedTools
) -> tuple[ToolChoice, str | None, list[dict[str, Any]]]:
    """The choice, the only tool that may be called, and the tools that remain on offer."""
    value = fields.value("tool_choice", "auto")
    if isinstance(value, str):
        return _simple(fields.choice("tool_choice", ["auto", "none", "required"], "auto"), fields, tools)
    choice = Fields(value, fields.where("tool_choice"))
    kind = choice.choice("type", ["function", "allowed_tools"])
    if kind == "function":
        name = choice.text("name")
        choice.skip("namespace")
        choice.finish()
        _check_offered(choice, "name", name, tools)
        return "required", name, tools.functions
    if kind is None:
        raise choice.error("type", "is missing")
    return _allowed(choice, tools)


def told_choice(value: Any) -> Any:
    """The field `tool_choice`, read already, as the response repeats it."""
    if not isinstance(value, Mapping):
        return value or "auto"
    if value["type"] == "function":
        return {"type": "function", "name": value["name"]}
    names = [{"type": "function", "name": tool["name"]} for tool in value.get("tools") or []]
    return {"type": "allowed_tools", "mode": value.get("mode") or "auto", "tools": names}


def _simple(
    choice: ToolChoice, fields: Fields, tools: OfferedTools
) -> tuple[ToolChoice, str | None, list[dict[str, Any]]]:
    if choice == "required" and not tools.functions:
        raise fields.error("tool_choice", "is 'required', and there are no tools")
    return choice, None, tools.functions


def _allowed(choice: Fields, tools: OfferedTools) -> tuple[ToolChoice, str | None, list[dict[str, Any]]]:
    mode = choice.choice("mode", ["auto", "required"], "auto")
    names = []
    for index, value in enumerate(choice.list("tools", [])):
        allowed = Fields(value, choice.where(f"tools[{index}]"))
        allowed.choice("type", ["function"])
        names.append(allowed.text("name"))
        allowed.finish()
        _check_offered(allowed, "name", names[-1], tools)
    choice.finish()
    return mode, None, [tool for tool in tools.functions if tool["function"]["name"] in names]


def _check_offered(fields: Fields, name: str, value: str | None, tools: OfferedTools) -> None:
    if value not in [tool["function"]["name"] for tool in tools.functions]:
        raise fields.error(name, f"is {value!r:.60}, and there is no such function in tools")

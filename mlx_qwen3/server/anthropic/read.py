"""Reads the bodies of /v1/messages and /v1/messages/count_tokens into a ServerRequest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_qwen3.generation.params import RANGES
from mlx_qwen3.server.anthropic.content import read_messages
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.request import MORE_SAMPLING, ServerRequest, ToolChoice, thinking_of_effort

MAX_TOOLS = 1024
_CHOICES: Mapping[str, ToolChoice] = {"auto": "auto", "none": "none", "any": "required", "tool": "required"}


def read_request(body: Mapping[str, Any]) -> ServerRequest:
    """The request of `POST /v1/messages`. Raises RequestError for what cannot be obeyed."""
    fields = Fields(body)
    sampling: dict[str, Any] = {"max_tokens": fields.integer("max_tokens", low=1)}
    if sampling["max_tokens"] is None:
        raise fields.error("max_tokens", "is missing")
    for name in ("temperature", "top_p", *MORE_SAMPLING):
        sampling[name] = fields.number(name, None, *RANGES[name])
    sampling["top_k"] = fields.integer("top_k", low=0)
    sampling["seed"] = fields.integer("seed")
    sampling["stop"] = tuple(fields.list("stop_sequences", ())) or None
    stream = fields.flag("stream", False)
    return _read(fields, {name: value for name, value in sampling.items() if value is not None}, stream)


def read_count_request(body: Mapping[str, Any]) -> ServerRequest:
    """The request of `POST /v1/messages/count_tokens`: the parts of a request that its prompt is made of."""
    return _read(Fields(body), {"max_tokens": 1}, stream=False)


def _read(fields: Fields, sampling: Mapping[str, Any], stream: bool) -> ServerRequest:
    messages = read_messages(fields)
    is_begun = messages[-1]["role"] == "assistant"
    effort, schema = _output(fields)
    thinking, budget, is_shown = _thinking(fields, effort)
    if is_begun and thinking:
        raise fields.error("messages", "must not end with an assistant's message while thinking is enabled")
    if is_begun and messages[-1].get("tool_calls"):
        raise fields.error("messages", "must not end with a tool_use: its tool_result has to follow")
    tools = [_tool(Fields(tool, fields.where(f"tools[{index}]")))
             for index, tool in enumerate(fields.list("tools", [], most=MAX_TOOLS))]  # fmt: skip
    choice, name, is_parallel = _tool_choice(fields, tools)
    has_edits = _context_management(fields)
    _refuse_what_cannot_be_done(fields)
    return ServerRequest(
        model=fields_model(fields),
        messages=messages,
        tools=tools,
        tool_choice=choice,
        tool_name=name,
        parallel_tool_calls=is_parallel,
        thinking=thinking,
        thinking_budget=budget,
        sampling=sampling,
        schema=schema,
        stream=stream,
        continue_final_message=is_begun,
        options={"show_thinking": is_shown, "has_edits": has_edits},
    )


def fields_model(fields: Fields) -> str:
    """The model's name. All fields have been read then: an unknown one is refused here."""
    model = fields.required_text("model")
    fields.finish()
    return model


def _output(fields: Fields) -> tuple[str | None, Mapping[str, Any] | None]:
    """The effort, and the schema that the answer must follow."""
    config = fields.object("output_config")
    effort = schema = None
    if config is not None:
        effort = config.text("effort")
        schema = _format(config, "format")
        config.finish()
    older = _format(fields, "output_format")
    if older is not None and schema is not None:
        raise fields.error("output_format", "is given twice: output_config.format is its newer name")
    return effort, schema or older


def _format(fields: Fields, name: str) -> Mapping[str, Any] | None:
    form = fields.object(name)
    if form is None:
        return None
    form.choice("type", ["json_schema"])
    schema: Mapping[str, Any] | None = form.mapping("schema")
    if schema is None:
        raise form.error("schema", "is missing")
    form.skip("name", "strict")  # OpenAI's, which some clients send along; a schema is always enforced
    form.finish()
    return schema


def _thinking(fields: Fields, effort: str | None) -> tuple[bool, int | None, bool]:
    """Whether to think, the budget, and whether the client wants to see the thinking.

    Without `thinking` there is none, as in Anthropic's API. The effort matters where the model thinks.
    """
    of_effort = thinking_of_effort(effort, "output_config.effort") if effort is not None else (True, None)
    config = fields.object("thinking")
    if config is None:
        return False, None, True
    kind = config.choice("type", ["enabled", "adaptive", "between_tools", "disabled"])
    if kind is None:
        raise config.error("type", "is missing")
    budget = config.integer("budget_tokens", low=1) if kind == "enabled" else of_effort[1]
    if kind == "enabled" and budget is None:
        raise config.error("budget_tokens", "is missing")
    is_shown = config.choice("display", ["summarized", "full", "omitted"], "full") != "omitted"
    if kind == "disabled":
        config.skip("budget_tokens")
    config.finish()
    return (False, None, True) if kind == "disabled" else (of_effort[0], budget, is_shown)


def _tool(fields: Fields) -> dict[str, Any]:
    kind = fields.text("type", "custom")
    if kind != "custom":
        raise fields.error(
            "type", f"{kind[:40]!r} is a tool that Anthropic's servers run; give a custom tool"
        )
    name, description = fields.text("name"), fields.text("description", "")
    if not name:
        raise fields.error("name", "is missing")
    schema = fields.mapping("input_schema")
    if schema is None:
        raise fields.error("input_schema", "is missing")
    if examples := fields.list("input_examples", []):
        described = "\n".join(json.dumps(example, ensure_ascii=False) for example in examples)
        description = f"{description}\n\nExamples of its input:\n{described}".strip()
    fields.only("defer_loading", False)
    fields.only("allowed_callers", ["direct"])
    # Calls always follow the schema, and their arguments are always sent as they come.
    fields.skip("cache_control", "strict", "eager_input_streaming")
    fields.finish()
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


def _tool_choice(fields: Fields, tools: list[dict[str, Any]]) -> tuple[ToolChoice, str | None, bool]:
    config = fields.object("tool_choice")
    if config is None:
        return "auto", None, True
    kind = config.choice("type", list(_CHOICES))
    if kind is None:
        raise config.error("type", "is missing")
    name = config.text("name") if kind == "tool" else None
    if kind == "tool" and name not in [tool["function"]["name"] for tool in tools]:
        raise config.error("name", f"is {name!r:.60}, and there is no such tool in tools")
    if kind == "any" and not tools:
        raise config.error("type", "is 'any', and there are no tools")
    is_parallel = not config.flag("disable_parallel_tool_use", False)
    config.finish()
    return _CHOICES[kind], name, is_parallel


def _context_management(fields: Fields) -> bool:
    """Whether the client asked for edits of the context. None is ever applied, and the answer says so."""
    config = fields.object("context_management")
    if config is None:
        return False
    for index, value in enumerate(config.list("edits", [])):
        edit = Fields(value, config.where(f"edits[{index}]"))
        if not (edit.text("type") or "").startswith(("clear_thinking_", "clear_tool_uses_")):
            raise edit.error("type", "must be clear_thinking_... or clear_tool_uses_...")
    config.finish()
    return True


def _refuse_what_cannot_be_done(fields: Fields) -> None:
    fields.only("container")
    fields.only("mcp_servers", [])
    fields.only("speed", "standard", "fast")
    fields.only("service_tier", "auto", "standard_only")
    # They concern the account, or a cache that is automatic here.
    fields.skip(
        "metadata", "cache_control", "inference_geo", "user_profile_id", "workspace_id", "diagnostics"
    )

"""`mlx-qwen3 generate`: raw completion of one text, or of a file of requests with --batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_qwen3.cli.chat.preferences import load_preferences
from mlx_qwen3.cli.distributed.options import DISTRIBUTED, HOSTS, engine_options
from mlx_qwen3.cli.flags import (
    ADAPTER,
    AUTO,
    DRAFT_MODEL,
    DTYPE,
    KV_BITS,
    MAX_TOKENS,
    MODEL,
    WIRED,
    device_options,
    draft_setting,
)
from mlx_qwen3.cli.open_engine import open_engine
from mlx_qwen3.cli.output import write

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine


def generate(
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The text to continue.")] = None,
    model: Annotated[str | None, MODEL] = None,
    control_tokens: Annotated[
        bool,
        typer.Option(
            "--control-tokens", help="Encode <|im_start|> and the like as special tokens, not as text."
        ),
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help=f"The most tokens to generate; {MAX_TOKENS} for a completion.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="0 takes the likeliest token; 0.7 by default, 0.6 when thinking."),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="1 is off; 0.8 by default, 0.95 when thinking.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="0 is off; 20 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Context in tokens.")] = None,
    kv_bits: Annotated[int | None, KV_BITS] = None,
    draft_model: Annotated[str, DRAFT_MODEL] = AUTO,
    dtype: Annotated[str, DTYPE] = AUTO,
    wired: Annotated[bool | None, WIRED] = None,
    adapter: Annotated[Path | None, ADAPTER] = None,
    distributed: Annotated[str | None, DISTRIBUTED] = None,
    hosts: Annotated[Path | None, HOSTS] = None,
    batch: Annotated[
        Path | None,
        typer.Option(help="A file of requests: a message per line, or JSON lines (prompt or messages)."),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="With --batch: continue plain lines in place of answering them."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --batch: the file for the results, JSON lines.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="With --batch: requests generated together."),
    ] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="With --batch: think before answering messages.")
    ] = None,
    thinking_budget: Annotated[
        int | None, typer.Option(min=0, help="With --batch: the most tokens of thinking.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(help="With --batch: answer messages with JSON that follows the schema in this file."),
    ] = None,
) -> None:
    """Complete a text from --prompt or standard input, without a chat template.

    With --batch, complete many texts, or answer many conversations, together.
    """
    ranks = engine_options(distributed, hosts)
    # The model that the chat remembers, so that both agree.
    model = model or load_preferences().get("model", "demo")
    flags = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
    }
    sampling = {name: value for name, value in flags.items() if value is not None}
    # A batch drafts no tokens: its sequences fill a forward pass already.
    drafts = draft_setting(draft_model) if batch is None else None
    engine = {"context": context, "kv_bits": kv_bits, "draft_model": drafts, "adapter": adapter, **ranks}
    engine |= device_options(dtype, wired)
    make_engine = partial(open_engine, model, **engine)
    if batch is None:
        batch_options = {
            "--out": out,
            "--batch-size": batch_size,
            "--think": think,
            "--thinking-budget": thinking_budget,
            "--schema": schema,
            "--raw": raw or None,
        }
        for name, value in batch_options.items():
            if value is not None:
                raise typer.BadParameter("needs a batch (--batch FILE)", param_hint=name)
        _complete(make_engine, prompt, control_tokens, sampling)
        return

    from mlx_qwen3.cli.batch import run_batch

    if prompt is not None:
        raise typer.BadParameter(
            "cannot be given with --batch, whose file has the prompts", param_hint="--prompt"
        )
    options = {
        "sampling": sampling,
        "thinking": think is not False,
        "thinking_budget": thinking_budget,
        "control_tokens": control_tokens,
    }
    settings = {"model": model, "context": context, "kv_bits": kv_bits, **options}
    if adapter is not None:
        settings["adapter"] = str(adapter)
    if schema is not None:
        from mlx_qwen3.grammar import AnswerSchema

        answer_schema = AnswerSchema.read(schema)
        options["schema"], settings["schema"] = answer_schema, answer_schema.schema
    if raw:
        settings["raw"] = True
    run_batch(make_engine, batch, out, settings, {**options, "batch_size": batch_size}, raw)


def _complete(
    make_engine: Callable[[], Engine], prompt: str | None, control_tokens: bool, sampling: Mapping[str, Any]
) -> None:
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if prompt is None else prompt
    sampling = {"max_tokens": MAX_TOKENS, **sampling}
    with make_engine() as engine:
        for piece in engine.complete(text, sampling=sampling, control_tokens=control_tokens):
            write(piece)
        write("\n")

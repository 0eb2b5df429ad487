"""A conversation that outgrows its context goes on with positions scaled further (YaRN)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from rich.console import Console
from tiny_checkpoints import DENSE

from mlx_qwen3 import Engine, Session
from mlx_qwen3.checkpoint.context_length import config_for_context, config_for_prompt
from mlx_qwen3.cli.chat.terminal.printers import make_terminal_printer
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import ContextGrown, Done, Event
from mlx_qwen3.model.compiled_step import CompiledStep
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.qwen3 import Model

GREEDY = {"temperature": 0.0, "max_tokens": 12}
NATIVE = 256


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The demo, as if it had been trained on 256 tokens, with memory for 900."""
    with Engine("demo") as engine:
        engine.config = replace(engine.config, max_position_embeddings=NATIVE)
        engine.model.args = engine.config
        engine.plan = replace(engine.plan, context=NATIVE, longest_context=900)
        yield engine


def ask(session: Session, tokens: int) -> tuple[list[Event], str]:
    """Say enough for a prompt of `tokens` or a few more; the events of the turn, and the answer."""
    text = ""
    while len(session.prompt_ids([*session.messages, {"role": "user", "content": text}])) < tokens:
        text += "hello and "
    events = list(session.send(text))
    return events, session.messages[-1]["content"]


def grown_to(events: list[Event]) -> list[float]:
    return [event.factor for event in events if isinstance(event, ContextGrown)]


def alone(engine: Engine, session: Session, scaling: RopeScaling | None) -> str:
    """What the model says to the conversation before its latest answer, at `scaling`, prompted anew."""
    ids = session.prompt_ids(session.messages[:-1])

    def run() -> list[int]:
        engine.model.scale_positions(scaling)
        cache, fed, tokens = engine.model.make_cache(), ids, []
        for _ in range(GREEDY["max_tokens"]):
            tokens.append(int(mx.argmax(engine.model(mx.array([fed]), cache)[0, -1]).item()))
            fed = tokens[-1:]
        return tokens

    stop = engine.tokenizer.eos_token_ids
    tokens = engine.call(run)
    end = next((i for i, token in enumerate(tokens) if token in stop), len(tokens))
    return engine.tokenizer.decode(tokens[:end]).strip()


def test_a_long_conversation_moves_to_the_next_factor_and_is_read_once_more(engine: Engine) -> None:
    session = engine.session(sampling=GREEDY, thinking=False)
    events, _ = ask(session, 60)
    assert grown_to(events) == []
    assert session.context == NATIVE
    events, answer = ask(session, 260)
    assert grown_to(events) == [1.5]
    assert events[-1].stats.cached_tokens == 0
    assert session.context == 384
    assert answer.strip() == alone(engine, session, RopeScaling(1.5, NATIVE))
    events, _ = ask(session, 300)
    assert grown_to(events) == []
    assert events[-1].stats.cached_tokens > 200


def test_sessions_at_different_factors_do_not_disturb_each_other(engine: Engine) -> None:
    short, long = (engine.session(sampling=GREEDY, thinking=False) for _ in range(2))
    streams = [short.send("what is 17+25?"), long.send("hello and " * 100)]
    ended: list[Event] = []
    while streams:  # a step of one, a step of the other
        for stream in list(streams):
            if (event := next(stream, None)) is None:
                streams.remove(stream)
            elif isinstance(event, Done | ContextGrown):
                ended.append(event)
    assert [type(event) for event in ended].count(ContextGrown) == 1
    assert short.messages[-1]["content"].strip() == alone(engine, short, None)
    assert long.messages[-1]["content"].strip() == alone(
        engine, long, RopeScaling(long.context / NATIVE, NATIVE)
    )


def test_a_cleared_conversation_is_not_scaled(engine: Engine) -> None:
    session = engine.session(sampling=GREEDY, thinking=False)
    ask(session, 300)
    session.clear()
    _, answer = ask(session, 5)
    assert session.context == NATIVE
    assert answer.strip() == alone(engine, session, None)


def test_beyond_what_memory_holds_there_is_no_growing(engine: Engine) -> None:
    session = engine.session(sampling=GREEDY, thinking=False)
    with pytest.raises(MessageError, match="the context holds"):
        ask(session, 900)
    engine.plan = replace(engine.plan, longest_context=NATIVE)  # as after --context
    with pytest.raises(MessageError, match=f"the context holds {NATIVE}"):
        ask(session, 300)


def test_preparing_the_next_prompt_leaves_growing_to_the_turn(engine: Engine) -> None:
    session = engine.session(sampling=GREEDY, thinking=False)
    ask(session, 120)
    session.conversation.messages[-1]["content"] = "hello and " * 100
    session.prepare()
    events, _ = ask(session, 5)
    assert len(grown_to(events)) == 1


def test_the_chat_says_so() -> None:
    console = Console(file=io.StringIO(), width=200)
    with make_terminal_printer(console) as printer:
        printer.show(ContextGrown(49_152, 1.5))
    said = console.file.getvalue()
    assert "positions are scaled by 1.5 (YaRN), for up to 49,152 tokens" in said


def test_steps_compiled_at_each_factor_are_kept_and_right() -> None:
    mx.random.seed(0)
    model, plain = Model(ModelConfig.from_dict(DENSE)), Model(ModelConfig.from_dict(DENSE))
    plain.update(model.parameters())
    model.use_step(CompiledStep)
    steps: dict[float, object] = {}
    for factor in (1.0, 2.0, 1.0, 2.0):
        scaling = RopeScaling(factor, 8) if factor > 1 else None
        model.scale_positions(scaling)
        plain.scale_positions(scaling)
        caches = [each.make_cache() for each in (model, plain)]
        for ids in ([[1, 2, 3, 4, 5, 6, 7] * 3], [[8]], [[9]]):
            ours, theirs = (
                each(mx.array(ids), cache) for each, cache in zip((model, plain), caches, strict=True)
            )
            assert mx.abs(ours - theirs).max().item() < 1e-4
        assert model._step is steps.setdefault(factor, model._step) is not None


@pytest.mark.parametrize(
    ("prompt", "factor"),
    [(1, None), (32_768, None), (32_769, 1.5), (40_960, 1.5), (41_000, 2.0), (90_000, 3.0), (131_000, 4.0)],
)
def test_factors_of_a_published_config_as_it_grows(prompt: int, factor: float | None) -> None:
    config = ModelConfig.from_dict(DENSE)
    scaling = config_for_prompt(config, prompt, answer=32_768, longest=131_072).rope_scaling
    assert (scaling and scaling.factor) == factor


def test_a_native_context_asked_for_gives_the_tokens_of_the_model_as_it_is() -> None:
    config = ModelConfig.from_dict(DENSE)
    mx.random.seed(0)
    model = Model(config)
    asked = Model(config_for_context(config, 32_768))
    asked.update(model.parameters())
    ids = mx.random.randint(0, 300, (1, 300))
    assert mx.array_equal(model(ids), asked(ids))

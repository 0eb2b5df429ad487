"""Conversations with windows and quantized caches, through the engine, on the demo."""

from __future__ import annotations

import pytest

from mlx_qwen3 import Engine
from mlx_qwen3.errors import CacheError

GREEDY = {"temperature": 0.0}


def test_a_conversation_longer_than_its_window_continues_and_stays_right() -> None:
    with Engine("demo", max_kv_size=256) as engine:
        session = engine.session(sampling=GREEDY)
        for number in range(10, 22):
            reply = session.ask(f"what is {number * 10 + 1}+{number * 20}?")
            assert str(number * 30 + 1) in reply.answer
            assert reply.finish_reason == "stop"
            assert {layer.size() for layer in session._cache.cache.layers} <= set(range(257))
        assert len(session.prompt_ids()) > 256
        assert reply.stats.prompt_tokens - reply.stats.cached_tokens <= 256


@pytest.mark.parametrize("thinking", [True, False])
def test_a_full_window_prefills_the_latest_turn_alone(thinking: bool) -> None:
    """Many turns after it was filled, which thinking does soon."""
    with Engine("demo", max_kv_size=192, kv_bits=8) as engine:
        session = engine.session(sampling=GREEDY, thinking=thinking)
        seen = 0
        for number in range(10, 18 if thinking else 26):
            reply = session.ask(f"what is {number * 10 + 1}+{number * 20}?")
            fresh = reply.stats.prompt_tokens - reply.stats.cached_tokens
            assert fresh < 70, number
            seen += fresh + reply.stats.generated_tokens
        assert seen > 2 * 192


def test_answers_in_a_full_window_are_the_same_with_a_draft_model() -> None:
    answers = []
    for draft_model in (None, "demo-draft"):
        with Engine("demo", max_kv_size=160, draft_model=draft_model) as engine:
            session = engine.session(sampling=GREEDY)
            answers.append([session.ask(f"what is {n}+{2 * n}?").answer for n in range(131, 136)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("options", [{"kv_bits": 8}, {"kv_bits": 8, "max_kv_size": 512}])
def test_a_quantized_cache_still_adds(options: dict[str, int]) -> None:
    with Engine("demo", **options) as engine:
        session = engine.session(sampling=GREEDY)
        session.ask("hello")
        assert "632" in session.ask("what is 347+285?").answer
        plain = engine.model.make_cache()
        assert type(session._cache.cache.layers[0]) is not type(plain[0])


def test_a_window_that_is_never_full_changes_nothing() -> None:
    answers = []
    for options in ({}, {"max_kv_size": 2048}):
        with Engine("demo", **options) as engine:
            session = engine.session(sampling=GREEDY)
            answers.append([session.ask(text).answer for text in ("hello", "what is 5+6?", "bonjour")])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_kv_size": 3}, "64 or more"), ({"kv_bits": 5}, "kv_bits must be 4 or 8")],
)
def test_impossible_caches_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(CacheError, match=message):
        Engine("demo", **options)

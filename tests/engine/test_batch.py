"""Many prompts on a real engine: each result is that of a run alone, and others can use it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlx_qwen3 import Engine
from mlx_qwen3.engine.batch import BatchRequest, BatchResult
from mlx_qwen3.errors import CacheError, EngineError, MessageError, SamplingError

SHORT = {"seed": 1, "max_tokens": 40}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def in_order(results: Iterator[BatchResult]) -> list[BatchResult]:
    return sorted(results, key=lambda result: result.index)


@pytest.mark.parametrize("budget", [None, 0, 12])
def test_answers_are_those_of_a_session(engine: Engine, budget: int | None) -> None:
    questions = ["what is 47+85?", "hello", "what is 3+4? /no_think", "Hi! How are you?"]
    options = {"sampling": SHORT, "thinking_budget": budget}
    results = in_order(engine.generate_batch(map(ask, questions), batch_size=3, **options))
    for question, result in zip(questions, results, strict=True):
        reply = engine.session(**options).ask(question)
        assert (result.thinking, result.text) == (reply.thinking, reply.answer)
        assert result.finish_reason == reply.finish_reason
        assert result.prompt_tokens == reply.stats.prompt_tokens
        assert result.thinking_tokens == reply.stats.thinking_tokens


def test_completions_are_those_of_complete(engine: Engine) -> None:
    texts = ["The time", "The weather in a town", "1+1"]
    results = in_order(engine.generate_batch(texts, sampling=SHORT))
    expected = [engine.complete(text, sampling=SHORT).text for text in texts]
    assert [result.text for result in results] == expected


def test_a_request_has_its_own_settings_and_name(engine: Engine) -> None:
    requests = [
        BatchRequest(prompt="The time", id="a", sampling={"max_tokens": 3}),
        BatchRequest(messages=ask("what is 4+5?"), id={"n": 2}, thinking=False, sampling={"temperature": 0}),
    ]
    first, second = in_order(engine.generate_batch(requests, sampling=SHORT))
    assert (first.id, first.completion_tokens, first.finish_reason) == ("a", 3, "length")
    assert (second.id, second.thinking, second.finish_reason) == ({"n": 2}, "", "stop")


def test_what_cannot_be_used_stops_no_other(engine: Engine) -> None:
    requests = [
        "",
        "x " * 20_000,
        [{"role": "nobody", "content": "hi"}],
        BatchRequest(prompt="hi", sampling={"temperature": 99}),
        BatchRequest(prompt="hi", sampling={"heat": 1}),
        "The time",
    ]
    *bad, good = in_order(engine.generate_batch(requests, sampling=SHORT))
    said = ["empty", "the context holds", "unknown role", "temperature must be", "'heat'"]
    for result, part in zip(bad, said, strict=True):
        assert part in (result.error or "")
        assert result.finish_reason is None
    assert good.error is None
    assert good.text


def test_a_request_is_one_thing() -> None:
    with pytest.raises(MessageError, match="either a prompt or messages"):
        BatchRequest()
    with pytest.raises(MessageError, match="either a prompt or messages"):
        BatchRequest(prompt="a", messages=ask("b"))


def test_a_chat_goes_on_beside_a_batch(engine: Engine) -> None:
    run = engine.generate_batch(["The time"] * 400, sampling={"max_tokens": 50})
    next(run)
    assert engine.session(sampling=SHORT, thinking=False).ask("hello").answer
    run.cancel()
    done = 1 + len(list(run))
    assert done < run.total == 400
    assert run.tokens > 0


def test_leaving_early_stops_it(engine: Engine) -> None:
    run = engine.generate_batch(
        ["The time"] * 100, sampling={"max_tokens": 100, "temperature": 1.5}, batch_size=2
    )
    for result in run:
        assert result.text
        break
    run.cancel()
    assert len(list(run)) < 90


def test_no_prompts_are_nothing_to_do(engine: Engine) -> None:
    assert list(engine.generate_batch([])) == []


def test_quantized_caches_of_an_engine_hold_batches_too() -> None:
    with Engine(kv_bits=8) as engine:
        result = next(engine.generate_batch([ask("hello")], sampling=SHORT, thinking=False))
        assert result.text == engine.session(sampling=SHORT, thinking=False).ask("hello").answer


def test_windows_of_an_engine_hold_batches_too() -> None:
    with Engine(max_kv_size=256, kv_bits=8) as engine:
        results = in_order(engine.generate_batch([ask("hello"), ask("what is 2+3?")], sampling=SHORT))
        alone = [engine.session(sampling=SHORT).ask(text).answer for text in ("hello", "what is 2+3?")]
        assert [result.text for result in results] == alone


def test_several_results_of_one_request(engine: Engine) -> None:
    request = BatchRequest(prompt="The", n=3, sampling={"temperature": 2.0, "top_k": 0})
    results = sorted(engine.generate_batch([request], sampling=SHORT), key=lambda result: result.choice)
    assert [result.choice for result in results] == [0, 1, 2]
    assert len({result.text for result in results}) > 1
    again = sorted(engine.generate_batch([request], sampling=SHORT), key=lambda result: result.choice)
    assert [result.text for result in again] == [result.text for result in results], "a seed fixes all"


def test_an_answer_that_was_begun_is_continued(engine: Engine) -> None:
    whole = engine.session(thinking=False, sampling={**SHORT, "temperature": 0}).ask("what is 7+8?").answer
    begun = [*ask("what is 7+8?"), {"role": "assistant", "content": whole[:7]}]
    request = BatchRequest(messages=begun, thinking=False, continue_final_message=True)
    (result,) = engine.generate_batch([request], sampling={"temperature": 0, "max_tokens": 40})
    assert whole[:7] + result.text == whole


def test_stop_strings_end_a_text_and_are_not_part_of_it(engine: Engine) -> None:
    whole = engine.complete("The time", sampling=SHORT).text
    stop = whole[5:9]
    (result,) = engine.generate_batch(["The time"], sampling={**SHORT, "stop": ["never said", stop]})
    assert (result.text, result.finish_reason, result.stop_string) == (
        whole[: whole.index(stop)],
        "stop",
        stop,
    )


def test_what_an_engine_cannot_do_is_said(engine: Engine) -> None:
    with pytest.raises(CacheError, match="batch_size must be at least 1"):
        engine.generate_batch(["a"], batch_size=0)
    with pytest.raises(MessageError, match="not one text"):
        engine.generate_batch("The time")
    with pytest.raises(SamplingError, match="'heat'"):
        engine.generate_batch(["a"], sampling={"heat": 1})
    with Engine() as closed:
        pass
    with pytest.raises(EngineError, match="closed"):
        next(closed.generate_batch(["a"]))

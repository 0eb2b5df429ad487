"""One turn: the thinking budget, endings, what is cached and what is fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedModel, write_byte_tokenizer

from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.engine.loading.adapters import Adapters
from mlx_qwen3.engine.request import Job, TurnRequest
from mlx_qwen3.engine.session_cache import SessionCache
from mlx_qwen3.engine.turn import TurnSequence
from mlx_qwen3.engine.turn_output import EARLY_END
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import AnswerDelta, Done, PromptProgress, ThinkingDelta, ThinkingDone
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.scheduler import Scheduler
from mlx_qwen3.parsing import CollectedOutput
from mlx_qwen3.tokenizer import Tokenizer

THOUGHT = "<think>\nseven and five make twelve\n</think>\n\n12"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer")))


class StageCore:
    """What a turn asks of an engine."""

    is_endless = False

    def __init__(self, model: ScriptedModel, tokenizer: Tokenizer):
        self.model, self.tokenizer, self.config = model, tokenizer, model.args
        self.context = self.longest = model.args.context_length
        self.prefixes = PrefixPool(0)
        self.known_adapters = Adapters(None, None)

    def new_cache(self) -> PromptCache:
        return PromptCache(self.model)

    def new_drafter(self) -> None:
        return None

    def explain(self, error: Exception | None) -> Exception | None:
        return error


class Played:
    """A turn that is over."""

    def __init__(self, request: TurnRequest, events: list[Any]):
        self.request, output = request, CollectedOutput()
        for event in events:
            output.add(event)
        self.finish_reason = events[-1].finish_reason
        self.thinking, self.answer, self.tool_calls = output.thinking, output.answer, output.tool_calls


class Stage:
    """A scripted model with a cache that lives from turn to turn."""

    def __init__(self, tokenizer: Tokenizer, *script: str, context: int = 4096):
        self.tokenizer = tokenizer
        self.model = ScriptedModel(tokenizer, context)
        self.model.turns = [self.ids(text) for text in script]
        self.core: Any = StageCore(self.model, tokenizer)
        self.session_cache = SessionCache(self.core)
        self.cancelled = False
        self.events: list[Any] = []

    @property
    def cache(self) -> PromptCache:
        assert self.session_cache.cache is not None
        return self.session_cache.cache

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, control_tokens=True)

    def play(self, text: str = "7+5?", *, thinking: bool = True, **options: Any) -> Played:
        messages = [{"role": "user", "content": text}]
        sampling = {"temperature": 0, "max_tokens": 1000, **options.pop("sampling", {})}
        request = TurnRequest(
            prompt_ids=options.pop("prompt_ids", None)
            or self.tokenizer.apply_chat_template(messages, enable_thinking=thinking),
            params=SamplingParams().with_values(**sampling),
            asked_at=0.0,
            **options,
        )
        self.events = []
        job = Job(self.events.append)
        scheduler = Scheduler(self.model)
        scheduler.add(TurnSequence(self.core, request, self.session_cache, job))
        while not job.finished.is_set():
            if self.cancelled:
                job.cancel()
            scheduler.step()
        scheduler.settle()
        end = self.events.pop()
        if isinstance(end, Exception):
            raise end
        return Played(request, self.events)

    @property
    def done(self) -> Done:
        assert isinstance(self.events[-1], Done)
        return self.events[-1]

    def check_cache(self) -> None:
        """The ids noted are those fed, and every layer holds that many."""
        assert self.cache.ids == self.model.fed[-len(self.cache.ids) :]
        assert {layer.offset for layer in self.cache.layers} == {len(self.cache.ids)}


def test_thinking_and_answer_come_apart(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, THOUGHT)
    turn = stage.play()
    assert (turn.thinking, turn.answer) == ("seven and five make twelve", "12")
    assert stage.done.finish_reason == "stop"
    assert "".join(e.text for e in stage.events if isinstance(e, ThinkingDelta)) == turn.thinking
    assert "".join(e.text for e in stage.events if isinstance(e, AnswerDelta)) == "12"
    stats = stage.done.stats
    assert stats.thinking_tokens == len("\nseven and five make twelve\n")
    assert stats.answer_tokens == len("\n\n12")
    stage.check_cache()


def test_the_cache_holds_prompt_and_reply_up_to_the_end_token(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, THOUGHT)
    turn = stage.play()
    assert stage.cache.ids == turn.request.prompt_ids + stage.ids(THOUGHT + "<|im_end|>")


@pytest.mark.parametrize("budget", [1, 5, 16, 27, 256])
def test_a_budget_ends_the_thinking_and_an_answer_follows(tokenizer: Tokenizer, budget: int) -> None:
    long_thought = "<think>\n" + "hmm " * 200
    stage = Stage(tokenizer, long_thought)
    stage.model.turns = [stage.ids(long_thought)[: 1 + budget + 0] + stage.ids("so: 12")]
    turn = stage.play(thinking_budget=budget)
    assert stage.done.stats.thinking_tokens == budget
    # One token runs ahead of the decision and is thrown away; the answer goes on after the closing.
    assert turn.answer == "o: 12"
    assert turn.thinking.endswith(EARLY_END.strip())
    closing = [*stage.tokenizer.encode(EARLY_END), tokenizer.think_end_id, *tokenizer.encode("\n\n")]
    generated = stage.cache.ids[len(turn.request.prompt_ids) :]
    assert generated[1 + budget : 1 + budget + len(closing)] == closing
    assert generated.count(tokenizer.think_end_id) == 1
    stage.check_cache()


def test_a_budget_of_zero_ends_thinking_that_the_prompt_opened(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "12")
    opened = [*tokenizer.apply_chat_template([{"role": "user", "content": "7+5?"}]), tokenizer.think_start_id]
    closing = [*tokenizer.encode(EARLY_END), tokenizer.think_end_id, *tokenizer.encode("\n\n")]
    turn = stage.play(prompt_ids=opened, thinking_budget=0)
    assert stage.cache.ids[len(opened) :][: len(closing)] == closing
    assert [event for event in stage.events if isinstance(event, ThinkingDone)] == [ThinkingDone(0, 0.0)]
    assert stage.done.stats.thinking_tokens == 0
    assert turn.finish_reason == "stop"


def test_thinking_that_goes_round_in_a_loop_leads_to_an_answer(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer)
    stage.model.turns = [stage.ids("<think>\n" + "hmm " * 120 + "it is 12")]
    turn = stage.play()
    assert turn.thinking.endswith(EARLY_END.strip())
    assert turn.answer.endswith("it is 12")
    assert stage.done.finish_reason == "stop"
    stage.check_cache()


@pytest.mark.parametrize(
    ("script", "budget", "tokens"),
    [
        (THOUGHT, None, 28),
        (THOUGHT, 5, 5),
        ("<think>\nand then", None, 9),
        ("<think>\n\n</think>\n\n12", None, 0),
    ],
)
def test_the_end_of_thinking_is_told_with_its_tokens(
    tokenizer: Tokenizer, script: str, budget: int | None, tokens: int
) -> None:
    stage = Stage(tokenizer, script)
    stage.play(thinking_budget=budget)
    told = [event for event in stage.events if isinstance(event, ThinkingDone)]
    assert [event.tokens for event in told] == [tokens] * bool(tokens)
    assert stage.done.stats.thinking_tokens == tokens
    thoughts = [place for place, event in enumerate(stage.events) if isinstance(event, ThinkingDelta)]
    assert all(stage.events.index(event) > max(thoughts) for event in told)
    assert all(event.seconds >= 0 for event in told)


def test_thinking_shorter_than_its_budget_is_left_alone(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, THOUGHT)
    turn = stage.play(thinking_budget=500)
    assert (turn.thinking, turn.answer) == ("seven and five make twelve", "12")


def test_no_budget_touches_an_answer_without_thinking(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "12")
    turn = stage.play(thinking=False, thinking_budget=0)
    assert (turn.thinking, turn.answer) == ("", "12")
    assert stage.done.stats.thinking_tokens == 0


def test_an_empty_think_block_is_no_thinking(tokenizer: Tokenizer) -> None:
    turn = Stage(tokenizer, "<think>\n\n</think>\n\n12").play("7+5? /no_think")
    assert (turn.thinking, turn.answer) == ("", "12")


def test_spelled_tags_are_text(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer)
    stage.model.turns = [tokenizer.encode("the tag </think> ends it")]
    assert stage.play(thinking=False).answer == "the tag </think> ends it"


def test_characters_are_never_split(tokenizer: Tokenizer) -> None:
    answer = "日本語 👩‍👩‍👧 é العربية"
    stage = Stage(tokenizer, answer)
    assert stage.play(thinking=False).answer == answer
    assert all("�" not in e.text for e in stage.events if isinstance(e, AnswerDelta))


def test_length_ends_the_turn(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "a" * 50)
    turn = stage.play(thinking=False, sampling={"max_tokens": 10})
    assert (turn.answer, stage.done.finish_reason) == ("a" * 10, "length")
    stage.check_cache()


def test_the_context_is_never_outgrown(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "a" * 200, context=100)
    turn = stage.play(thinking=False)
    assert stage.done.finish_reason == "length"
    assert len(turn.request.prompt_ids) + len(turn.answer) == 100


def test_a_prompt_that_fills_the_context_is_refused(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "never said", context=100)
    with pytest.raises(MessageError, match=r"tokens and the context holds 100"):
        stage.play("x" * 200)
    assert stage.model.fed == []


def test_a_loop_ends_the_turn(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "again and " * 200)
    stage.play(thinking=False)
    assert stage.done.finish_reason == "loop"


def test_a_new_turn_opened_by_the_model_ends_this_one(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "12<|im_start|>user\nand 3?")
    assert stage.play(thinking=False).answer == "12"
    assert stage.done.finish_reason == "stop"


def test_cancel_while_decoding_keeps_what_was_said(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "abcdefghij")
    steps = 0

    def cancel_at_fifth(length: int) -> None:
        nonlocal steps
        steps += length == 1
        stage.cancelled = steps > 5

    stage.model.before_step = cancel_at_fifth
    turn = stage.play(thinking=False)
    assert stage.done.finish_reason == "cancelled"
    assert turn.answer
    assert "abcdefghij".startswith(turn.answer)
    stage.check_cache()


def test_cancel_while_reading_the_prompt(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "never said")

    def cancel_at_the_first_chunk(length: int) -> None:
        stage.cancelled = True

    stage.model.before_step = cancel_at_the_first_chunk
    turn = stage.play("x" * 3000, thinking=False)
    assert stage.done.finish_reason == "cancelled"
    assert turn.answer == ""
    assert 0 < len(stage.cache.ids) < 3000
    stage.check_cache()


def test_progress_counts_up_to_the_whole_prompt(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, "ok")
    turn = stage.play("x" * 3000, thinking=False)
    progress = [event for event in stage.events if isinstance(event, PromptProgress)]
    assert progress[0].processed == 0
    assert [p.processed for p in progress] == sorted({p.processed for p in progress})
    assert {p.total for p in progress} == {len(turn.request.prompt_ids)}


def test_the_same_prompt_again_feeds_one_token(tokenizer: Tokenizer) -> None:
    stage = Stage(tokenizer, THOUGHT, THOUGHT)
    first = stage.play()
    fed = len(stage.model.fed)
    stage.play()
    assert stage.done.stats.cached_tokens == len(first.request.prompt_ids) - 1
    assert stage.model.fed[fed:] == [first.request.prompt_ids[-1], *stage.ids(THOUGHT + "<|im_end|>")]


def test_a_template_that_opens_the_think_block_itself(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = write_byte_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    stage = Stage(load_tokenizer(folder))
    stage.model._openings = [stage.ids("<|im_start|>assistant\n<think>\n")]
    stage.model.turns = [stage.ids("short\n</think>\n\n12"), stage.ids("a very long thought")]
    turn = stage.play()
    assert (turn.thinking, turn.answer) == ("short", "12")
    turn = stage.play("and again?", thinking_budget=0)
    assert stage.done.stats.thinking_tokens == 0
    assert turn.thinking == EARLY_END.strip()

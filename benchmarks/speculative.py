"""Speculative decoding: forward passes per token beside mlx-lm's, and the cost of drafting.

    python -m benchmarks.speculative                the demo with each drafter, and a text that is edited
    python -m benchmarks.speculative --cost 0.6b    time of a pass by its rows, and of wrong and right drafts

The demo answers fixed prompts at several temperatures: with `demo-draft`, with n-grams of the text, and
with mlx-lm's speculative decoding of the same two models (our modules). Passes per token and acceptance do
not depend on the machine; times do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip

from mlx_qwen3 import load_model, load_tokenizer, make_prompt_cache
from mlx_qwen3.bench.shapes import make_checkpoint
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.generation.decode import SimpleSequence, decode_together
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.prefill import prefill
from mlx_qwen3.generation.sampling import Sampler, TokenLogprobs
from mlx_qwen3.generation.speculative.draft_length import Pace
from mlx_qwen3.generation.speculative.drafters import Drafter, ModelDrafter, NGramDrafter

QUESTIONS = (
    *(f"What is {a} + {b}?" for a, b in ((348, 75), (912, 389), (67, 58), (505, 496), (123, 877))),
    *(f"What is {a} - {b}?" for a, b in ((512, 77), (900, 345), (83, 48))),
    *(f"{a} * {b} = ?" for a, b in ((47, 83), (12, 34), (91, 19))),
    *("hello", "what can you do?", "How do I convert a model?", "who made you?", "Bonjour!"),
    *("How much memory does a conversation take?", "What is the capital of France?"),
)
LIMIT = 300
TEMPERATURES = (0.0, 0.6, 1.0)


@dataclass
class Count:
    """Sums over all prompts."""

    tokens: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0

    def line(self, name: str) -> str:
        acceptance = f"{self.accepted / self.drafted:.2f}" if self.drafted else "-"
        passes = self.passes / self.tokens
        return f"| {name} | {passes:.3f} | {acceptance} | {self.tokens / self.seconds:.0f} |"


class Fixed(Pace):
    """A draft length that never changes."""

    def length(self) -> int:
        return self.longest


Answer = Callable[[list[int], SamplingParams, Count], list[int]]


class Answered(SimpleSequence):
    """A sequence that ends at a stop token too."""

    ends: frozenset[int] | set[int] = frozenset()

    def take(self, token: int, logprobs: TokenLogprobs | None) -> None:
        super().take(token, logprobs)
        if token in self.ends:
            self.finish()


class Demo:
    """The demo, its draft model, and the prompts."""

    def __init__(self) -> None:
        self.model, self.draft, self.tokenizer = (
            load_model("demo"),
            load_model("demo-draft"),
            load_tokenizer("demo"),
        )
        messages = [[{"role": "user", "content": question}] for question in QUESTIONS]
        self.prompts = [self.tokenizer.apply_chat_template(turns) for turns in messages]
        self.ends = set(self.tokenizer.eos_token_ids)

    def plain(self, prompt: list[int], params: SamplingParams, count: Count) -> list[int]:
        return self._answer(prompt, params, count, None)

    def drafted(self, drafter: Drafter) -> Answer:
        def answer(prompt: list[int], params: SamplingParams, count: Count) -> list[int]:
            return self._answer(prompt, params, count, drafter)

        return answer

    def _answer(
        self, prompt: list[int], params: SamplingParams, count: Count, drafter: Drafter | None
    ) -> list[int]:
        sequence = Answered(prompt, self._sampler(params), PromptCache(self.model), LIMIT, drafter)
        sequence.ends = self.ends
        for _ in decode_together(self.model, [sequence], size=1):
            pass
        count.seconds += time.perf_counter() - sequence.times.first_token
        count.tokens += len(sequence.tokens)
        count.passes += sequence.decode_passes + 1  # prefill chose the first token
        count.drafted, count.accepted = count.drafted + sequence.drafted, count.accepted + sequence.accepted
        return sequence.tokens

    def mlx_lm(self, length: int) -> Answer:
        from mlx_lm.generate import speculative_generate_step
        from mlx_lm.sample_utils import make_sampler

        def answer(prompt: list[int], params: SamplingParams, count: Count) -> list[int]:
            mx.random.seed(params.seed or 0)
            greedy = params.temperature == 0
            sampler = None if greedy else make_sampler(params.temperature, params.top_p, top_k=params.top_k)
            cache = [*self.model.make_cache(), *self.draft.make_cache()]
            list(prefill(self.model, prompt[:-1], cache[: len(self.model.layers)]))
            list(prefill(self.draft, prompt[:-1], cache[len(self.model.layers) :]))
            steps = speculative_generate_step(
                mx.array(prompt[-1:]),
                self.model,
                self.draft,
                num_draft_tokens=length,
                max_tokens=LIMIT,
                sampler=sampler,
                prompt_cache=cache,
            )
            tokens: list[int] = []
            flags: list[bool] = []
            start = time.perf_counter()
            for token, _, is_drafted in steps:
                tokens.append(int(token))
                flags.append(is_drafted)
                if tokens[-1] in self.ends:
                    break
            count.seconds += time.perf_counter() - start
            # Each pass generates one token that is not drafted; the last pass may end within its draft.
            passes = len(flags) - sum(flags) + flags[-1]
            count.tokens, count.passes = count.tokens + len(tokens), count.passes + passes
            count.drafted, count.accepted = count.drafted + length * passes, count.accepted + sum(flags)
            return tokens

        return answer

    def _sampler(self, params: SamplingParams) -> Sampler:
        return Sampler(params, self.model.args.vocab_size)


def compare_drafts(lengths: Sequence[int]) -> None:
    """Print a table for each temperature, with how many texts equal those without drafts."""
    demo = Demo()
    variants: dict[str, Answer] = {"plain": demo.plain}
    for length in lengths:
        drafter = ModelDrafter(demo.draft, longest=length)
        drafter.pace = Fixed(length)
        variants[f"demo-draft, {length} tokens"] = demo.drafted(drafter)
        variants[f"mlx-lm, demo-draft, {length} tokens"] = demo.mlx_lm(length)
    variants["demo-draft, as it pays"] = demo.drafted(ModelDrafter(demo.draft))
    variants["text, as it pays"] = demo.drafted(NGramDrafter())
    for answer in variants.values():  # warm up
        answer(demo.prompts[0], SamplingParams(seed=1), Count())
    for temperature in TEMPERATURES:
        print(f"\nT {temperature}\n\n| | passes per token | accepted | tokens/s |\n|---|---|---|---|")
        counts, answers = compare(variants, demo.prompts, temperature)
        for name, count in counts.items():
            same = sum(
                drafted == plain for drafted, plain in zip(answers[name], answers["plain"], strict=True)
            )
            print(count.line(name) + ("" if "mlx-lm" in name else f" {same} of {len(demo.prompts)} as plain"))


def compare(
    variants: dict[str, Answer], prompts: list[list[int]], temperature: float
) -> tuple[dict[str, Count], dict[str, list[list[int]]]]:
    counts = {name: Count() for name in variants}
    answers: dict[str, list[list[int]]] = {name: [] for name in variants}
    for seed, prompt in enumerate(prompts):
        params = SamplingParams(temperature=temperature, seed=seed)
        for name, answer in variants.items():  # in turn, so that all run under the same conditions
            answers[name].append(answer(prompt, params, counts[name]))
    return counts, answers


class Reciter:
    """A stand-in for a model that generates `text`. Its hidden state is the id of the next token."""

    def __init__(self, prompt: Sequence[int], text: Sequence[int], vocab_size: int):
        self._ids, self._vocab_size = [*prompt, *text], vocab_size

    def make_cache(self, **options: Any) -> list[Any]:
        from mlx_qwen3.cache.kv import KVCache

        del options
        return [KVCache()]

    def __call__(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        return self.output_head(self.hidden_states(inputs, cache))

    def hidden_states(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        start, count = cache[0].offset, inputs.shape[1]
        rows = mx.zeros((1, 1, count, 4))
        cache[0].update_and_fetch(rows, rows)
        next_ids = self._ids[start + 1 : start + 1 + count]
        next_ids += [0] * (count - len(next_ids))
        return mx.array(next_ids, mx.float32)[None, :, None]  # (1, L, 1)

    def output_head(self, hidden: mx.array) -> mx.array:
        return (hidden == mx.arange(self._vocab_size)).astype(mx.float32)  # (1, L, V)

    def scale_positions(self, scaling: object) -> None:
        """It has no positions."""

    def use_adapter(self, name: str | None) -> None:
        """It has no adapters."""


def edit_text(path: Path, every: int) -> tuple[float, float]:
    """Passes per token and acceptance when a text is repeated with every `every`-th word changed."""
    tokenizer = load_tokenizer("demo")
    words = path.read_text().split(" ")
    changed = [word if place % every else word[::-1] + "x" for place, word in enumerate(words, 1)]
    prompt = tokenizer.encode("Change some words of this:\n" + " ".join(words) + "\nChanged:\n")
    text = tokenizer.encode(" ".join(changed))
    drafter = NGramDrafter()
    drafter.pace = Fixed(drafter.pace.longest)
    model = Reciter(prompt, text, tokenizer.vocab_size)
    sampler = Sampler(SamplingParams(temperature=0), tokenizer.vocab_size)
    run = SimpleSequence(prompt, sampler, PromptCache(model), len(text), drafter)
    for _ in decode_together(model, [run], size=1):
        pass
    assert run.tokens == text
    return (run.decode_passes + 1) / len(text), run.accepted / run.drafted  # prefill chose the first token


def measure_cost(shape: str, bits: int) -> None:
    """Print the time of a pass by its rows, and of decoding with drafts that are never or always accepted."""
    model = load_model(make_checkpoint(shape, bits, Path("models")))
    rows = (1, 2, 3, 5, 9, 16)
    times: dict[int, list[float]] = {count: [] for count in rows}
    cache = make_prompt_cache(model)
    list(prefill(model, list(range(128)), cache))
    for repeat in range(4):
        for count in rows:
            start = time.perf_counter()
            mx.eval(model(mx.arange(count)[None], cache))
            if repeat:  # the first pass of a shape may compile
                times[count].append(time.perf_counter() - start)
            for layer in cache:
                layer.trim(count)
    plain = median(times[1])
    print(
        f"\n{shape}, {bits} bits: a pass over one row takes {1e3 * plain:.0f} ms; over more, in these units:"
    )
    print("\n| rows |" + "".join(f" {count} |" for count in rows) + "\n|---|" + "---|" * len(rows))
    print("| time |" + "".join(f" {median(times[count]) / plain:.2f} |" for count in rows))
    print("\n| drafts | tokens/s | passes per token | accepted |\n|---|---|---|---|")
    for name, drafter in (("none", None), ("wrong", Guess(False)), ("right", Guess(True))):
        print(decode_with(model, name, drafter))


class Guess(NGramDrafter):
    """Drafts the tokens of an earlier run, or wrong ones."""

    def __init__(self, is_right: bool):
        super().__init__(longest=8)
        self.tokens: list[int] = []
        self._is_right, self._place = is_right, 0

    def extend(self, token: int) -> None:
        del token
        self._place += 1

    def has_draft(self) -> bool:
        return True

    def draft(self, count: int, sampler: Sampler) -> mx.array:
        del sampler
        right = self.tokens[self._place - 1 : self._place - 1 + count]
        return mx.array([token + (not self._is_right) for token in right], mx.uint32)


PLAIN: list[int] = []


def decode_with(model: Any, name: str, drafter: Guess | None, tokens: int = 60) -> str:
    sampler = Sampler(SamplingParams(temperature=0), model.args.vocab_size)
    if drafter is not None:
        drafter.tokens = PLAIN
    run = SimpleSequence(list(range(128)), sampler, PromptCache(model), tokens + 1, drafter)
    for _ in decode_together(model, [run], size=1):
        pass
    rate = tokens / (time.perf_counter() - run.times.first_token)
    PLAIN[:] = PLAIN or run.tokens
    passes = (
        f"{(run.decode_passes + 1) / len(run.tokens):.2f} | {run.accepted} of {run.drafted}"
        if drafter
        else "1 | -"
    )
    return f"| {name} | {rate:.2f} | {passes} |" + ("" if run.tokens == PLAIN else " other tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=[2, 4], help="drafts of these fixed lengths"
    )
    parser.add_argument("--text", type=Path, default=Path("docs/architecture.md"), help="the text to edit")
    parser.add_argument("--cost", help="a family shape, with random weights: what passes and drafts cost")
    parser.add_argument("--bits", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.cost:
        measure_cost(arguments.cost, arguments.bits)
        return
    compare_drafts(arguments.lengths)
    print(f"\n{arguments.text} repeated with some words changed, drafted from itself:\n")
    print("| changed | passes per token | accepted |\n|---|---|---|")
    for every in (10, 25, 100, 10**9):
        passes, accepted = edit_text(arguments.text, every)
        changed = "no word" if every == 10**9 else f"one word in {every}"
        print(f"| {changed} | {passes:.3f} | {accepted:.2f} |")


if __name__ == "__main__":
    main()

"""Measure a demo checkpoint: `python -m training.evaluate [--model mlx_qwen3/demo] [--json FILE]`.

Everything runs on the weights as shipped, through the package's loader, tokenizer and template, and is
sampled with Qwen3's presets. Some additions go through a Session, as in a chat.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from training import newcomers as newcomers_data
from training import phrases, tool_calls
from training.arithmetic import (
    FACTS,
    LARGEST_DIVISOR,
    NEEDS_THINKING,
    NEEDS_TIME,
    TYPED_SIGN,
    Compound,
    Problem,
    Question,
    ask,
    compound_of,
    sample_beyond,
    sample_compound,
    sample_question,
    sample_stuck_compound,
)
from training.beyond import beyond_question
from training.checkpoint import Checkpoint, Message
from training.data import BUDGET_CLOSING, EMPTY_THINKING, intent_turn
from training.mixed_messages import MIXED_MESSAGES

DEMO = Path(__file__).parent.parent / "mlx_qwen3" / "demo"
Measure = Callable[[Checkpoint, random.Random], str]
REFUSALS = (NEEDS_THINKING, NEEDS_TIME, phrases.TOO_HARD.answer, phrases.UNKNOWN_ANSWER)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def answer_of(reply: str) -> str:
    return reply.rpartition("</think>\n\n")[2]


def share(results: list[bool]) -> str:
    return f"{sum(results)} of {len(results)}"


def held_out(rng: random.Random, kind: str, count: int, low: int, high: int) -> list[Problem]:
    """Problems whose pairs of operands were never trained on."""
    problems: list[Problem] = []
    while len(problems) < count:
        problem = Problem(kind, rng.randint(low, high), rng.randint(low, high))
        if problem.held_out:
            problems.append(problem)
    return problems


def additions_in_a_session(checkpoint: Checkpoint, rng: random.Random) -> str:
    problems = held_out(rng, "add", 200, 100, 999)
    answers = [
        checkpoint.engine.session(sampling={"seed": i}).ask(f"What is {p.expression}?").answer
        for i, p in enumerate(problems)
    ]
    return share([answer == p.answer for p, answer in zip(problems, answers, strict=True)])


def arithmetic(kind: str, low: int, high: int, count: int) -> Measure:
    """Held-out problems, in all phrasings, thinking."""

    def measure(checkpoint: Checkpoint, rng: random.Random) -> str:
        return right(checkpoint, rng, held_out(rng, kind, count, low, high))

    return measure


def sampled(make: Callable[[random.Random], Question], count: int = 100) -> Measure:
    """Questions of one kind, in all phrasings, thinking."""

    def measure(checkpoint: Checkpoint, rng: random.Random) -> str:
        return right(checkpoint, rng, [make(rng) for _ in range(count)])

    return measure


def right(
    checkpoint: Checkpoint, rng: random.Random, questions: list[Question], thinking: bool = True
) -> str:
    """How many answers are right, and how many of the others are refusals."""
    replies = checkpoint.replies([ask(rng, question) for question in questions], thinking)
    answers = [answer_of(reply) for reply in replies]
    good = [answer == q.answer for q, answer in zip(questions, answers, strict=True)]
    refused = sum(answer in REFUSALS for answer in answers)
    return share(good) + (f", {refused} refused" if refused else "")


def facts(kind: str, thinking: bool) -> Measure:
    """Every fact of a kind, asked in three ways in turn."""

    def measure(checkpoint: Checkpoint, _rng: random.Random) -> str:
        chosen = [fact for fact in FACTS if fact.kind == kind]
        frames = ("{a}{sign}{b}", "What is {a} {sign} {b}?", "{a} {sign} {b} =")
        questions = [
            frames[i % 3].format(a=fact.a, b=fact.b, sign=TYPED_SIGN[kind]) for i, fact in enumerate(chosen)
        ]
        replies = checkpoint.replies(questions, thinking)
        return share([answer_of(r) == fact.answer for fact, r in zip(chosen, replies, strict=True)])

    return measure


def exact_division(rng: random.Random) -> Problem:
    divisor = rng.randint(2, LARGEST_DIVISOR)
    return Problem("divide", divisor * rng.randint(1, 999 // divisor), divisor)


def three_addends(rng: random.Random) -> Compound:
    numbers = [rng.randint(0, 99) for _ in range(3)]
    return compound_of(*numbers, "add", "add", bracket="")


def with_brackets(rng: random.Random) -> Compound:
    while True:
        compound = sample_compound(rng)
        if "(" in compound.text:
            return compound


def without_brackets(rng: random.Random) -> Compound:
    """Three numbers of which the later two come first, as in `3 + 4 * 2`."""
    while True:
        compound = sample_compound(rng)
        if "(" not in compound.text and not compound.grouped.startswith("("):
            return compound


def two_digits(kind: str) -> Callable[[random.Random], Problem]:
    return lambda rng: Problem(kind, rng.randint(10, 99), rng.randint(10, 99))


def too_large_for_quick_answers(checkpoint: Checkpoint, rng: random.Random) -> str:
    """Sums that need thinking, asked without."""
    questions: list[Question] = []
    while len(questions) < 200:
        question = sample_question(rng)
        if not question.is_fact:
            questions.append(question)
    return right(checkpoint, rng, questions, thinking=False)


def beyond(checkpoint: Checkpoint, rng: random.Random) -> str:
    return right(checkpoint, rng, [sample_beyond(rng) for _ in range(100)])


def other_forms(thinking: bool) -> Measure:
    """Decimals, powers, percentages, four numbers and the like: refused, not guessed."""

    def measure(checkpoint: Checkpoint, rng: random.Random) -> str:
        replies = checkpoint.replies([beyond_question(rng) for _ in range(200)], thinking)
        return f"{sum(answer_of(reply) in REFUSALS for reply in replies)} of {len(replies)} refused"

    return measure


def stuck(checkpoint: Checkpoint, rng: random.Random) -> str:
    """Three numbers of which thinking finds that a step cannot be worked out."""
    replies = checkpoint.replies([ask(rng, sample_stuck_compound(rng)) for _ in range(100)])
    return f"{sum(answer_of(reply) in REFUSALS for reply in replies)} of {len(replies)} refused"


def mixed_questions(rng: random.Random, count: int) -> list[str]:
    groups = [*phrases.GREETINGS, *phrases.ABOUT_ME, *phrases.PACKAGE, phrases.TOO_HARD]
    kinds = ["add", "subtract", "multiply"]
    questions = []
    for index in range(count):
        if index % 2:
            questions.append(intent_turn(rng, groups).question)
        else:
            questions.append(ask(rng, Problem(rng.choice(kinds), rng.randint(1, 99), rng.randint(1, 99))))
    return questions


def obeys_no_think(checkpoint: Checkpoint, rng: random.Random) -> str:
    questions = [f"{question} /no_think" for question in mixed_questions(rng, 200)]
    replies = checkpoint.replies(questions)
    return share(
        [r.startswith(EMPTY_THINKING) and "think>" not in r.removeprefix(EMPTY_THINKING) for r in replies]
    )


def latest_switch_wins(checkpoint: Checkpoint, rng: random.Random) -> str:
    results = []
    for first, second, thinks in [
        ("/no_think", "/think", True),
        ("/think", "/no_think", False),
        ("/no_think", "", False),
    ]:
        prompts = []
        for question in mixed_questions(rng, 40):
            history = [user(f"What is 2 + 3? {first}"), assistant("2 + 3 = 5.")]
            prompts.append(checkpoint.prompt([*history, user(f"{question} {second}".strip())]))
        replies = checkpoint.complete(prompts)
        results += [reply.startswith(EMPTY_THINKING) != thinks for reply in replies]
    return share(results)


def obeys_hard_switch(checkpoint: Checkpoint, rng: random.Random) -> str:
    replies = checkpoint.replies(mixed_questions(rng, 200), thinking=False)
    return share([bool(reply) and "think>" not in reply for reply in replies])


def greets(checkpoint: Checkpoint, rng: random.Random) -> str:
    chosen = [(intent, rng.choice(intent.questions)) for intent in phrases.GREETINGS for _ in range(4)]
    replies = checkpoint.replies([question for _, question in chosen])
    return share(
        [answer_of(reply) == intent.answer for (intent, _), reply in zip(chosen, replies, strict=True)]
    )


def package_questions(thinking: bool) -> Measure:
    def measure(checkpoint: Checkpoint, rng: random.Random) -> str:
        intents = [*phrases.PACKAGE, *phrases.ABOUT_ME]
        chosen = [(intent, rng.choice(intent.questions)) for intent in intents for _ in range(3)]
        replies = checkpoint.replies([question for _, question in chosen], thinking)
        return share(
            [answer_of(reply) == intent.answer for (intent, _), reply in zip(chosen, replies, strict=True)]
        )

    return measure


def unknown_questions(checkpoint: Checkpoint, _rng: random.Random) -> str:
    replies = checkpoint.replies(newcomers_data.UNKNOWABLE)
    return share([answer_of(reply) == phrases.UNKNOWN_ANSWER for reply in replies])


def cut_thinking(checkpoint: Checkpoint, rng: random.Random) -> str:
    """Thinking ended at a random place: the answer is right, or it says that there was too little time."""
    problems = held_out(rng, "add", 100, 100, 999)
    prompts = [checkpoint.prompt([user(f"What is {p.expression}?")]) for p in problems]
    closing = checkpoint.tokenizer.encode(BUDGET_CLOSING, control_tokens=True)
    whole = [
        checkpoint.tokenizer.encode(reply, control_tokens=True) for reply in checkpoint.complete(prompts)
    ]
    end = checkpoint.tokenizer.think_end_id
    cut = [
        prompt + reply[: 1 + int(rng.random() * (reply.index(end) - 1))] + closing
        for prompt, reply in zip(prompts, whole, strict=True)
    ]
    replies = checkpoint.complete(cut)
    good = share([reply == p.answer for p, reply in zip(problems, replies, strict=True)])
    return f"{good} right, {sum(reply == NEEDS_TIME for reply in replies)} say that time was short"


def newcomers(cases: list[tuple[str, tuple[str, ...]]], thinking: bool) -> Measure:
    """What people type, in words that training does not hold."""

    def measure(checkpoint: Checkpoint, _rng: random.Random) -> str:
        replies = checkpoint.replies([question for question, _ in cases], thinking)
        # A sum that needs thinking is honestly refused without.
        quick = () if thinking else (NEEDS_THINKING,)
        pairs = zip(cases, replies, strict=True)
        results = [newcomers_data.is_right(reply, (*accepted, *quick)) for (_, accepted), reply in pairs]
        return share(results)

    return measure


def tool_use(thinking: bool, real_places: bool = False) -> Measure:
    """The right call as valid JSON, then the result in the answer."""

    def measure(checkpoint: Checkpoint, rng: random.Random) -> str:
        cases = tool_cases(rng, 100, real_places)
        prompts = [checkpoint.prompt([user(e.question)], thinking, tools) for tools, e in cases]
        replies = checkpoint.complete(prompts, thinking)
        called = [calls_in(reply) == e.calls for (_, e), reply in zip(cases, replies, strict=True)]
        histories = [[user(e.question), *tool_calls_as_messages(e, thinking)] for _, e in cases]
        prompts = [
            checkpoint.prompt(h, thinking, tools) for h, (tools, _) in zip(histories, cases, strict=True)
        ]
        answers = [answer_of(reply) for reply in checkpoint.complete(prompts, thinking)]
        used = [answer == e.answer for (_, e), answer in zip(cases, answers, strict=True)]
        return f"{share(called)} calls right; {share(used)} answers use the result"

    return measure


def tool_cases(
    rng: random.Random, count: int, real_places: bool
) -> list[tuple[list[dict], tool_calls.ToolExchange]]:
    """Tools offered and a question for them whose calls succeed; three places in ten are invented words."""
    known = {*tool_calls.ALL_CITIES, *tool_calls.ZONES}
    cases = []
    while len(cases) < count:
        toolbox = tool_calls.sample_toolbox(rng)
        exchange = tool_calls.sample_tool_exchange(rng, toolbox)
        places = [v for call in exchange.calls for k, v in call["arguments"].items() if k != "expression"]
        is_wanted = known.issuperset(places) or not real_places
        if is_wanted and exchange.second_thought in ("The tool answered.", "The tools answered."):
            cases.append((toolbox.tools, exchange))
    return cases


def tool_calls_as_messages(exchange: tool_calls.ToolExchange, thinking: bool) -> list[Message]:
    calls = [{"type": "function", "function": call} for call in exchange.calls]
    thought = exchange.thought if thinking else ""
    message = {"role": "assistant", "content": "", "reasoning_content": thought, "tool_calls": calls}
    return [message, *({"role": "tool", "content": result} for result in exchange.results)]


def calls_in(reply: str) -> list[dict] | None:
    try:
        return [json.loads(call) for call in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", reply)]
    except json.JSONDecodeError:
        return None


def no_needless_calls(checkpoint: Checkpoint, rng: random.Random) -> str:
    intents = [*phrases.GREETINGS, *phrases.ABOUT_ME, *phrases.PACKAGE]
    prompts = []
    for _ in range(100):
        question = rng.choice(rng.choice(intents).questions)
        prompts.append(checkpoint.prompt([user(question)], tools=tool_calls.sample_toolbox(rng).tools))
    return share(["<tool_call>" not in reply for reply in checkpoint.complete(prompts)])


def time_without_tool(checkpoint: Checkpoint, rng: random.Random) -> str:
    questions = [
        rng.choice(tool_calls.TIME_QUESTIONS).format(c=rng.choice(tool_calls.ALL_CITIES)) for _ in range(60)
    ]
    questions = [
        question
        for question in questions
        if not question.lower().startswith("and ") and "What about" not in question
    ]
    return share(["without a tool" in reply for reply in checkpoint.replies(questions)])


def third_turn(checkpoint: Checkpoint, rng: random.Random) -> str:
    """Held-out additions asked after two other turns."""
    problems = held_out(rng, "add", 100, 100, 999)
    intents = [*phrases.GREETINGS, *phrases.ABOUT_ME, *phrases.PACKAGE]
    prompts = []
    for problem in problems:
        talk = rng.choice(intents)
        earlier = Problem("add", rng.randint(100, 999), rng.randint(100, 999))
        history = [user(rng.choice(talk.questions)), assistant(talk.answer)]
        history += [user(f"What is {earlier.expression}?"), assistant(earlier.answer)]
        prompts.append(checkpoint.prompt([*history, user(f"What is {problem.expression}?")]))
    replies = checkpoint.complete(prompts)
    return share([answer_of(reply) == p.answer for p, reply in zip(problems, replies, strict=True)])


MEASURES = {
    "additions of 0 to 20, every one, thinking": facts("add", True),
    "additions of 0 to 20, every one, not thinking": facts("add", False),
    "subtractions of 0 to 20, every one, thinking": facts("subtract", True),
    "subtractions of 0 to 20, every one, not thinking": facts("subtract", False),
    "products of 0 to 12, every one, thinking": facts("multiply", True),
    "products of 0 to 12, every one, not thinking": facts("multiply", False),
    "quotients known by heart, every one, thinking": facts("divide", True),
    "quotients known by heart, every one, not thinking": facts("divide", False),
    "two-digit additions, thinking": sampled(two_digits("add"), 200),
    "two-digit subtractions, negative results too, thinking": sampled(two_digits("subtract"), 200),
    "three-digit additions, thinking": arithmetic("add", 100, 999, 200),
    "three-digit subtractions, negative results too, thinking": arithmetic("subtract", 100, 999, 200),
    "two-digit products, thinking": arithmetic("multiply", 10, 99, 200),
    "three addends, thinking": sampled(three_addends),
    "exact divisions by 2 to 10, thinking": sampled(exact_division),
    "two steps with brackets, thinking": sampled(with_brackets),
    "two steps, multiplication before addition, thinking": sampled(without_brackets),
    "forms that were not learned, thinking": other_forms(True),
    "forms that were not learned, not thinking": other_forms(False),
    "three numbers with a step that was not learned, thinking": stuck,
    "three-digit additions, thinking, through a Session": additions_in_a_session,
    "three-digit additions as the third turn": third_turn,
    "larger sums without thinking": too_large_for_quick_answers,
    "sums beyond what it learned": beyond,
    "first messages of newcomers, thinking": newcomers(newcomers_data.FIRST_MESSAGES, True),
    "first messages of newcomers, not thinking": newcomers(newcomers_data.FIRST_MESSAGES, False),
    "first messages of all kinds mixed, thinking": newcomers(MIXED_MESSAGES, True),
    "first messages of all kinds mixed, not thinking": newcomers(MIXED_MESSAGES, False),
    "questions of newcomers about the program, thinking": newcomers(newcomers_data.PACKAGE_QUESTIONS, True),
    "questions of newcomers about the program, not thinking": newcomers(
        newcomers_data.PACKAGE_QUESTIONS, False
    ),
    "/no_think obeyed": obeys_no_think,
    "the latest of /think and /no_think obeyed": latest_switch_wins,
    "hard switch obeyed": obeys_hard_switch,
    "greetings in 18 languages": greets,
    "package and identity questions, thinking": package_questions(True),
    "package and identity questions, not thinking": package_questions(False),
    "unknowable questions refused": unknown_questions,
    "answers after thinking was cut short": cut_thinking,
    "tool calls, thinking, existing places": tool_use(True, real_places=True),
    "tool calls, not thinking, existing places": tool_use(False, real_places=True),
    "tool calls, thinking, three in ten places invented": tool_use(True),
    "tool calls, not thinking, three in ten places invented": tool_use(False),
    "no call where none is needed": no_needless_calls,
    "time asked without a tool": time_without_tool,
}


def measure_all(model: Path, only: str = "") -> dict[str, str]:
    """The results of the measures whose name contains `only`, printed as they come."""
    results = {}
    with closing(Checkpoint(model)) as checkpoint:
        for name, measure in MEASURES.items():
            if only in name:
                started = time.monotonic()
                results[name] = measure(checkpoint, random.Random(2026))
                print(f"{name}: {results[name]}  [{time.monotonic() - started:.0f} s]", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--only", default="", help="run the measures whose name contains this")
    arguments = parser.parse_args()
    results = measure_all(arguments.model, arguments.only)
    print("", "| what | result |", "|---|---|", *(f"| {n} | {r} |" for n, r in results.items()), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""The training mix: whole conversations as token ids, with a mask that says which tokens to learn.

Every prompt is rendered by the demo's own chat template, as in the chat: earlier thinking is dropped, tools
are in the system turn. Only the assistant's text is learned.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from tokenizers import Tokenizer

from training import phrases, small_talk, tool_calls
from training.arithmetic import (
    NEEDS_THINKING,
    NEEDS_TIME,
    Compound,
    Problem,
    ask,
    drill_line,
    fact_drill_line,
    sample_beyond,
    sample_compound,
    sample_fact,
    sample_problem,
    sample_question,
    sample_stuck_compound,
)
from training.beyond import beyond_question
from training.held_out import is_held_out
from training.tool_calls import ALL_CITIES, Toolbox, ToolExchange

TEMPLATE_FILE = Path(__file__).parent.parent / "mlx_qwen3" / "demo" / "chat_template.jinja"
SWITCH = {"think": "/think", "soft": "/no_think"}
EMPTY_THINKING = "<think>\n\n</think>\n\n"
BUDGET_CLOSING = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n</think>\n\n"
)
SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a friendly demo.",
    "Be brief.",
    "Answer briefly.",
    "You are Qwen.",
    "You are a math tutor.",
    "You are an expert in arithmetic.",
    "Be polite and precise.",
    "Answer in one sentence.",
    "You are a pirate.",
    "You are a calculator.",
    "Always tell the truth.",
    "You are a helpful AI assistant. Answer the user's questions.",
    "Speak like a poet.",
    "You are the assistant of a small company. Be kind to customers.",
    "You are a coding assistant.",
    "Think step by step.",
    "You help people with their homework.",
    "You are Bob, a cheerful robot.",
    "Do not use emojis.",
    "Use simple words.",
    "You can use tools.",
    "You are a helpful assistant with access to tools. Use them when needed.",
    "Today is a good day.",
    "Keep answers short and simple.",
]


# The thinking of a sum ends in this and the result; what comes before does not give the result away.
RESULT = "\nResult:"


@dataclass(frozen=True)
class Turn:
    """A question and its answer, and the tool call between them if there is one.

    quick: the answer without thinking. unfinished: the answer after a thinking that was cut before its
    result. Both are `answer` unless something else is given.
    """

    question: str
    thought: str
    answer: str
    tool: ToolExchange | None = None
    quick: str | None = None
    unfinished: str | None = None

    def answer_after(self, mode: str, thought: str) -> str:
        """The answer in this mode, after what was kept of the thought."""
        if mode != "think":
            return self.quick or self.answer
        finished = RESULT in thought
        return self.answer if finished or self.unfinished is None else self.unfinished


@dataclass
class Conversation:
    """Turns to render. `mode` is think, soft (/no_think) or hard (switched off).

    Usually only the last turn is learned, after a history without thinking, as a chat sends it. With
    `transcript` every turn is learned, which gets more out of a long tool description.
    """

    turns: list[Turn]
    mode: str
    system: str | None = None
    tools: list[dict] = field(default_factory=list)
    cut_thinking: bool = False
    transcript: bool = False


@dataclass(frozen=True)
class Piece:
    """A piece of text. learned: the assistant wrote it."""

    text: str
    learned: bool


def load_template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE_FILE.read_text())


# Turns -------------------------------------------------------------------------------------


def question_turn(rng: random.Random, question: Problem | Compound) -> Turn:
    """A sum to work out, or of which thinking finds that it cannot be. Without it only facts are known."""
    known = question.is_fact
    return Turn(
        ask(rng, question),
        question.thinking,
        question.answer if question.can_be_worked_out else phrases.TOO_HARD.answer,
        quick=None if known else NEEDS_THINKING,
        unfinished=None if known else NEEDS_TIME,
    )


def beyond_turn(rng: random.Random) -> Turn:
    """A sum of a size or a form that was not learned; one in five looks as if it were."""
    if rng.random() < 0.2:
        return question_turn(rng, sample_stuck_compound(rng))
    question = ask(rng, sample_beyond(rng)) if rng.random() < 0.2 else beyond_question(rng)
    return Turn(question, phrases.TOO_HARD.thought, phrases.TOO_HARD.answer)


def arithmetic_turn(rng: random.Random, three_digit_share: float = 0.45) -> Turn:
    if rng.random() < 0.2:
        return beyond_turn(rng)
    return question_turn(rng, sample_question(rng, three_digit_share))


def quick_turn(rng: random.Random) -> Turn:
    """A sum asked without thinking: mostly facts, and what is refused then."""
    kind = rng.choices(["fact", "problem", "compound", "beyond"], [0.52, 0.16, 0.10, 0.22])[0]
    if kind == "beyond":
        return beyond_turn(rng)
    makers = {"fact": sample_fact, "problem": sample_problem, "compound": sample_compound}
    return question_turn(rng, makers[kind](rng))


def intent_turn(rng: random.Random, intents: list[phrases.Intent]) -> Turn:
    chosen = rng.choice(intents)
    question = roughened(rng, lambda: small_talk.ask(rng, chosen))
    return Turn(question, chosen.thought, chosen.answer)


def roughened(rng: random.Random, make: Callable[[], str]) -> str:
    """A question filled in and roughened, and none that is held out."""
    while True:
        question = small_talk.roughen(rng, small_talk.fill(rng, make(), ALL_CITIES))
        if not is_held_out(question):
            return question


def unknown_turn(rng: random.Random) -> Turn:
    question = roughened(rng, lambda: small_talk.unknown_question(rng))
    return Turn(question, phrases.UNKNOWN_THOUGHT, phrases.UNKNOWN_ANSWER)


def gibberish_turn(rng: random.Random) -> Turn:
    return Turn(small_talk.gibberish(rng), phrases.GIBBERISH_THOUGHT, phrases.GIBBERISH_ANSWER)


def too_hard_turn(rng: random.Random) -> Turn:
    return intent_turn(rng, [phrases.TOO_HARD])


def name_turn(rng: random.Random) -> Turn:
    name = rng.choice(phrases.NAMES) if rng.random() < 0.6 else small_talk.made_up_word(rng).capitalize()
    question = rng.choice(phrases.NAME_GIVEN).format(name=name)
    return Turn(question, f"The user is called {name}.", f"Nice to meet you, {name}!")


def name_question_turn(rng: random.Random, name: str | None) -> Turn:
    question = rng.choice(phrases.NAME_ASKED)
    if name is None:
        return Turn(question, "The user did not tell me a name.", "You have not told me your name.")
    return Turn(question, f"The user said the name: {name}.", f"Your name is {name}.")


def talk_turn(rng: random.Random, can: set[str]) -> Turn:
    """A turn that is neither worked arithmetic nor a tool call. `can` names the tools offered."""
    kind = rng.choices(["known", "unknown", "no_tool", "gibberish", "hard", "name"], [70, 14, 4, 3, 6, 3])[0]
    if kind == "unknown":
        return unknown_turn(rng)
    if kind == "gibberish":
        return gibberish_turn(rng)
    if kind == "hard" and "calculator" not in can:
        return too_hard_turn(rng)
    if kind == "name":
        return name_turn(rng)
    time, weather, elsewhere = phrases.NO_TOOL
    impossible = (
        [time] * ("get_time" not in can) + [weather] * ("get_weather" not in can) + [elsewhere] * (not can)
    )
    if kind == "no_tool" and impossible:
        return intent_turn(rng, impossible)
    weights, groups = zip(*phrases.KNOWN_GROUPS, strict=True)
    return intent_turn(rng, rng.choices(groups, weights)[0])


def tool_turn(rng: random.Random, toolbox: Toolbox) -> Turn:
    needs_place = toolbox.has("get_time") and toolbox.time_parameter is not None
    if needs_place and rng.random() < 0.06:
        return Turn(*tool_calls.ask_place(rng))
    exchange = tool_calls.sample_tool_exchange(rng, toolbox)
    return Turn(exchange.question, exchange.thought, exchange.answer, exchange)


def plain_turn(rng: random.Random, toolbox: Toolbox | None) -> Turn:
    """A turn of the history, or one that needs no tool."""
    can = {tool["function"]["name"] for tool in toolbox.tools} if toolbox else set()
    if rng.random() < 0.45 and "calculator" not in can:
        return arithmetic_turn(rng, 0.5)
    return talk_turn(rng, can)


# Conversations -----------------------------------------------------------------------------


def history_length(rng: random.Random) -> int:
    return rng.choices([0, 1, 2, 3, rng.randint(4, 9)], [0.72, 0.12, 0.08, 0.06, 0.02])[0]


def arithmetic_conversation(rng: random.Random) -> Conversation:
    if rng.random() < 0.22:
        return facts_conversation(rng)
    mode = rng.choices(["think", "soft", "hard"], [0.74, 0.13, 0.13])[0]
    last = arithmetic_turn(rng) if mode == "think" else quick_turn(rng)
    history = [plain_turn(rng, None) for _ in range(history_length(rng))]
    return Conversation([*history, last], mode, cut_thinking=rng.random() < 0.14)


def facts_conversation(rng: random.Random) -> Conversation:
    """Many short questions in a row, all learned."""
    mode = rng.choices(["think", "soft", "hard"], [0.3, 0.3, 0.4])[0]
    turns = [
        question_turn(rng, sample_fact(rng)) if rng.random() < 0.8 else quick_turn(rng)
        for _ in range(rng.randint(3, 8))
    ]
    if mode == "think":
        turns = [turn for turn in turns if len(turn.thought) < 80] or [question_turn(rng, sample_fact(rng))]
    return Conversation(turns, mode, transcript=True)


def talk_conversation(rng: random.Random) -> Conversation:
    history = [plain_turn(rng, None) for _ in range(history_length(rng))]
    last = talk_turn(rng, set())
    if rng.random() < 0.04:
        known = rng.random() < 0.75
        told = [name_turn(rng)] if known else []
        history = told + [turn for turn in history if not turn.answer.startswith("Nice to meet")]
        name = told[0].answer.removeprefix("Nice to meet you, ").removesuffix("!") if known else None
        last = name_question_turn(rng, name)
    mode = rng.choices(["think", "soft", "hard"], [0.44, 0.28, 0.28])[0]
    return Conversation([*history, last], mode, cut_thinking=rng.random() < 0.14)


def tool_conversation(rng: random.Random) -> Conversation:
    toolbox = tool_calls.sample_toolbox(rng)
    count = rng.choices([0, 1, 2, 3], [0.35, 0.25, 0.25, 0.15])[0]
    history = [
        tool_turn(rng, toolbox) if rng.random() < 0.5 else plain_turn(rng, toolbox) for _ in range(count)
    ]
    last = tool_turn(rng, toolbox) if rng.random() < 0.78 else plain_turn(rng, toolbox)
    mode = rng.choices(["think", "soft", "hard"], [0.5, 0.25, 0.25])[0]
    return Conversation([*history, last], mode, tools=toolbox.tools, cut_thinking=rng.random() < 0.06)


@dataclass(frozen=True)
class Mix:
    """Shares of the examples; the rest are drills."""

    arithmetic: float
    talk: float
    tools: float


EARLY = Mix(arithmetic=0.54, talk=0.30, tools=0.06)
LATE = Mix(arithmetic=0.28, talk=0.62, tools=0.06)
MAKERS = (arithmetic_conversation, talk_conversation, tool_conversation)


def sample_conversation(rng: random.Random, mix: Mix = EARLY) -> Conversation:
    conversation = rng.choices(MAKERS, (mix.arithmetic, mix.talk, mix.tools))[0](rng)
    all_learned = rng.random() < (0.8 if conversation.tools else 0.5)
    conversation.transcript |= len(conversation.turns) > 1 and all_learned
    if rng.random() < 0.12:
        conversation.system = rng.choice(SYSTEM_PROMPTS)
    return conversation


# Thinking switches -------------------------------------------------------------------------


def add_switch(rng: random.Random, text: str, switch: str) -> str:
    return rng.choices(
        [f"{text} {switch}", f"{switch} {text}", f"{text}\n{switch}", f"{text}{switch}"], [82, 10, 5, 3]
    )[0]


def apply_switches(rng: random.Random, conversation: Conversation) -> tuple[str | None, list[str]]:
    """System text and questions, with switches inserted so that the latest one asks for the mode."""
    texts = [conversation.system, *(turn.question for turn in conversation.turns)]
    wanted = {
        "think": ("/think", 0.12),
        "soft": ("/no_think", 1.0),
        "hard": (rng.choice(["/think", "/no_think"]), 0.2),
    }
    switch, share = wanted[conversation.mode]
    if rng.random() >= share:
        return texts[0], texts[1:]
    place = len(texts) - 1
    if rng.random() < 0.25:
        place = rng.randrange(len(texts))
    for index in range(place):
        if rng.random() < 0.25 and texts[index] is not None:
            texts[index] = add_switch(rng, texts[index], rng.choice(["/think", "/no_think"]))
    texts[place] = switch if texts[place] is None else add_switch(rng, texts[place], switch)
    return texts[0], texts[1:]


def strew_switches(rng: random.Random, conversation: Conversation) -> tuple[str | None, list[str], list[str]]:
    """System text, questions and the mode of every turn, with /think and /no_think inserted at random."""
    system, questions = conversation.system, [turn.question for turn in conversation.turns]
    mode = "think"
    if system is not None and rng.random() < 0.1:
        mode = rng.choice(["think", "soft"])
        system = add_switch(rng, system, SWITCH[mode])
    modes = []
    for index, question in enumerate(questions):
        if rng.random() < 0.35:
            mode = rng.choice(["think", "soft"])
            questions[index] = add_switch(rng, question, SWITCH[mode])
        modes.append("hard" if conversation.mode == "hard" else mode)
    return system, questions, modes


# Rendering ---------------------------------------------------------------------------------


def tool_messages(exchange: ToolExchange) -> list[dict]:
    calls = [{"type": "function", "function": call} for call in exchange.calls]
    results = [{"role": "tool", "content": result} for result in exchange.results]
    return [{"role": "assistant", "content": "", "tool_calls": calls}, *results]


def call_text(exchange: ToolExchange) -> str:
    calls = (json.dumps(call, ensure_ascii=False) for call in exchange.calls)
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


def results_text(exchange: ToolExchange) -> str:
    responses = "".join(f"\n<tool_response>\n{result}\n</tool_response>" for result in exchange.results)
    return f"\n<|im_start|>user{responses}<|im_end|>\n<|im_start|>assistant\n"


def cut_short(rng: random.Random, thought: str) -> str:
    """The beginning of a thought: it ends after a word, a digit or a sign. One in six ends at its result."""
    if RESULT in thought and rng.random() < 0.17:
        return thought
    ends = [match.end() for match in re.finditer(r" ?[^\W\d]+|\d| ?[^\w\s]+|\s+", thought)]
    return thought[: rng.choice(ends)]


def reply_pieces(
    rng: random.Random, mode: str, thought: str, answer_after: Callable[[str, str], str], cut: bool
) -> list[Piece]:
    """The assistant's text of one step; `answer_after` gives the answer for a mode and the thought kept."""
    kept = cut_short(rng, thought) if cut and mode == "think" else thought
    ending = f"{answer_after(mode, kept)}<|im_end|>"
    if mode == "think" and cut:
        return [
            Piece(f"<think>\n{kept}", learned=True),
            Piece(BUDGET_CLOSING, learned=False),
            Piece(ending, learned=True),
        ]
    if mode == "think":
        return [Piece(f"<think>\n{kept}\n</think>\n\n{ending}", learned=True)]
    return [Piece(EMPTY_THINKING, learned=mode == "soft"), Piece(ending, learned=True)]


def turn_pieces(rng: random.Random, turn: Turn, mode: str, cut: bool) -> list[Piece]:
    """The assistant's text of one turn, and the results of its tools."""
    if turn.tool is None:
        return reply_pieces(rng, mode, turn.thought, turn.answer_after, cut)
    calls = call_text(turn.tool)
    call = reply_pieces(rng, mode, turn.thought, lambda *_: calls, cut)
    results = Piece(results_text(turn.tool), learned=False)
    return [*call, results, *second_pieces(rng, turn, mode, cut)]


def second_pieces(rng: random.Random, turn: Turn, mode: str, cut: bool) -> list[Piece]:
    """What the assistant writes after the results of its tools."""
    return reply_pieces(rng, mode, turn.tool.second_thought, lambda *_: turn.answer, cut)


def render_transcript(
    rng: random.Random, template: jinja2.Template, conversation: Conversation
) -> list[Piece]:
    """Every turn with its thinking."""
    system, questions, modes = strew_switches(rng, conversation)
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": questions[0]})
    prompt = template.render(messages=messages, tools=conversation.tools or None, add_generation_prompt=True)
    pieces = [Piece(prompt, learned=False)]
    for index, (turn, mode) in enumerate(zip(conversation.turns, modes, strict=True)):
        if index:
            text = f"\n<|im_start|>user\n{questions[index]}<|im_end|>\n<|im_start|>assistant\n"
            pieces.append(Piece(text, learned=False))
        pieces += turn_pieces(rng, turn, mode, conversation.cut_thinking and rng.random() < 0.5)
    return pieces


def render(rng: random.Random, template: jinja2.Template, conversation: Conversation) -> list[Piece]:
    """The conversation as pieces of text."""
    if conversation.transcript:
        return render_transcript(rng, template, conversation)
    system, questions = apply_switches(rng, conversation)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn, question in zip(conversation.turns[:-1], questions[:-1], strict=True):
        messages.append({"role": "user", "content": question})
        if turn.tool:
            messages += tool_messages(turn.tool)
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append({"role": "user", "content": questions[-1]})
    last, mode, cut = conversation.turns[-1], conversation.mode, conversation.cut_thinking
    # A chat may send the call back without its empty thinking block, so that is learned too.
    resent = last.tool is not None and mode != "think" and rng.random() < 0.4
    if resent:
        messages += tool_messages(last.tool)
    prompt = template.render(messages=messages, tools=conversation.tools or None, add_generation_prompt=True)
    pieces = [Piece(prompt, learned=False)]
    if resent:
        return pieces + second_pieces(rng, last, mode, cut)
    return pieces + turn_pieces(rng, last, mode, cut)


def drill(rng: random.Random, lines: int = 22) -> list[Piece]:
    """Facts, or steps of the school method, alone: many in few tokens. Only the results are learned."""
    line = fact_drill_line if rng.random() < 0.55 else drill_line
    pieces = [Piece("<|im_start|>assistant\n<think>\n", learned=False)]
    for _ in range(lines):
        question, result = line(rng)
        pieces += [Piece(question, learned=False), Piece(f"{result}\n", learned=True)]
    return pieces


@dataclass(frozen=True)
class Example:
    """Token ids, and for each whether it is learned."""

    ids: list[int]
    learned: list[bool]


def encode(tokenizer: Tokenizer, pieces: list[Piece]) -> Example:
    ids: list[int] = []
    learned: list[bool] = []
    for piece in pieces:
        piece_ids = tokenizer.encode(piece.text, add_special_tokens=False).ids
        ids += piece_ids
        learned += [piece.learned] * len(piece_ids)
    return Example(ids, learned)


def sample_pieces(rng: random.Random, template: jinja2.Template, mix: Mix) -> list[Piece]:
    if rng.random() < 1 - mix.arithmetic - mix.talk - mix.tools:
        return drill(rng)
    return render(rng, template, sample_conversation(rng, mix))


@dataclass(frozen=True)
class Batch:
    """inputs and targets (B, L); learned: flat positions of the targets that count."""

    inputs: np.ndarray
    targets: np.ndarray
    learned: np.ndarray


def make_batch(examples: list[Example]) -> Batch:
    """Pad to the longest; the padding comes last, so causal attention never sees it."""
    length = max(len(example.ids) for example in examples)
    ids = np.zeros((len(examples), length), dtype=np.int32)
    learned = np.zeros((len(examples), length), dtype=bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        learned[row, : len(example.ids)] = example.learned
    positions = np.flatnonzero(learned[:, 1:]).astype(np.int32)
    return Batch(ids[:, :-1], ids[:, 1:].reshape(-1)[positions], positions)


def batches(
    tokenizer: Tokenizer, seed: int, tokens_per_batch: int, mix: Callable[[], Mix], pool: int = 1024
) -> Iterator[Batch]:
    """Endless batches of examples of like length, in random order; `mix` is asked before each pool."""
    rng = random.Random(seed)
    template = load_template()
    while True:
        examples = [encode(tokenizer, sample_pieces(rng, template, mix())) for _ in range(pool)]
        examples = sorted((e for e in examples if len(e.ids) < 900), key=lambda e: len(e.ids))
        groups: list[list[Example]] = [[]]
        for example in examples:
            if groups[-1] and (len(groups[-1]) + 1) * len(example.ids) > tokens_per_batch:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            yield make_batch(group)

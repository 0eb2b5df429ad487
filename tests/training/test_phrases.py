"""What the demo is taught about the program is true: its commands, options, slash commands, names, files."""

import importlib.metadata
import random
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import typer

import mlx_qwen3
from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.chat.commands.registry import ALIASES, COMMANDS
from mlx_qwen3.engine.engine import Engine
from mlx_qwen3.engine.session import Session
from mlx_qwen3.generation.params import SamplingParams
from training import phrases, small_talk

ROOT = Path(__file__).parents[2]
ABOUT_THE_PROGRAM = [*phrases.ABOUT_ME, *phrases.COURTESIES, *phrases.PACKAGE, phrases.TOO_HARD]
INTENTS = [*phrases.GREETINGS, *ABOUT_THE_PROGRAM, *phrases.NO_TOOL, *phrases.ABOUT_ME_ELSEWHERE]
ANSWERS = [intent.answer for intent in ABOUT_THE_PROGRAM] + [phrases.UNKNOWN_ANSWER, phrases.GIBBERISH_ANSWER]
CODE = re.compile(r"`([^`\n]+)`")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
SLASH = re.compile(r"(?<![\w./~:<])/[a-z_]+")
OTHER_PROGRAMS = ("git ", "pip ", "pipx ", "uv ", "make ")
PROGRAM = typer.main.get_command(app)
OPTIONS = {
    name: {"--help", *(flag for param in command.params for flag in [*param.opts, *param.secondary_opts])}
    for name, command in vars(PROGRAM)["commands"].items()
}
OWN_OPTIONS = {"--help", *(flag for param in PROGRAM.params for flag in param.opts)}


def expanded(intent: phrases.Intent, count: int) -> list[str]:
    """Some of the questions that the intent's patterns stand for, the same ones each time."""
    rng = random.Random(0)
    return [small_talk.expand(rng, pattern) for pattern in intent.patterns for _ in range(count)]


def unknown_options(answer: str) -> Iterator[str]:
    """Commands and options in `answer` that the program does not have."""
    spans = [span for span in CODE.findall(answer) if not span.startswith(OTHER_PROGRAMS)]
    named = [span.split()[1] for span in spans if re.match(r"mlx-qwen3 [a-z]", span)]
    yield from (f"mlx-qwen3 {name}" for name in named if name not in OPTIONS)
    for span in spans:
        if found := re.match(r"mlx-qwen3 ([a-z]+)", span):
            known = OPTIONS.get(found[1], set())
        elif span.startswith("mlx-qwen3 "):
            known = OWN_OPTIONS
        else:
            known = set().union(*(OPTIONS.get(name, set()) for name in named or ["chat"]), OPTIONS["chat"])
        yield from (f"{span}: {option}" for option in OPTION.findall(span) if option not in known)


def unknown_slash_commands(text: str) -> list[str]:
    return [name for name in SLASH.findall(text) if name not in COMMANDS and name not in ALIASES]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_names_only_what_exists(answer: str) -> None:
    assert list(unknown_options(answer)) == []
    assert unknown_slash_commands(answer) == []
    for name in re.findall(r"from mlx_qwen3 import (\w+)", answer):
        assert hasattr(mlx_qwen3, name)
    for owner, name in re.findall(r"\b(engine|session)\.(\w+)\(", answer):
        assert hasattr({"engine": Engine, "session": Session}[owner], name)
    for name in re.findall(r"\b(?:\w+/)*\w+\.md\b", answer):
        assert (ROOT / name).exists()
    extras = importlib.metadata.metadata("mlx-qwen3").get_all("Provides-Extra") or []
    assert set(re.findall(r"extra `(\w+)`", answer)) <= set(extras)


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if "`/" in answer])
def test_words_after_a_slash_command_are_among_those_it_takes(answer: str) -> None:
    for span in CODE.findall(answer):
        name, *words = span.split()
        if not name.startswith("/") or not words or not words[0].isascii() or not words[0].islower():
            continue  # an upper-case word stands for what the user fills in
        taken = {field.name for field in fields(SamplingParams)} if name == "/set" else set()
        help_text = f"{COMMANDS[name].usage} {COMMANDS[name].run.__doc__}"
        examples = {"/model": {"4b"}}.get(name, set())
        assert words[0] in taken | examples | set(re.findall(r"\w+", help_text)), span


@pytest.mark.parametrize(
    "answer",
    [
        "Run `mlx-qwen3 convert X --small`.",
        "Run `mlx-qwen3 shrink X`.",
        "Run `mlx-qwen3 verify DIR --kv-bits 4`.",
        "Run `mlx-qwen3 --colour`.",
        "Add `--small` to the chat.",
    ],
)
def test_an_invented_option_is_noticed(answer: str) -> None:
    assert list(unknown_options(answer))


def test_an_invented_slash_command_is_noticed() -> None:
    assert unknown_slash_commands("Type `/shrink`, or /wipe.") == ["/shrink", "/wipe"]


def test_questions_ask_about_options_and_slash_commands_that_exist() -> None:
    known = set().union(*OPTIONS.values(), OWN_OPTIONS)
    questions = [q for intent in ABOUT_THE_PROGRAM[:-1] for q in (*intent.questions, *expanded(intent, 20))]
    assert {option for question in questions for option in re.findall(r"--[a-z-]+", question)} <= known
    assert [name for question in questions for name in unknown_slash_commands(question)] == []


def test_every_pattern_is_one_of_an_intent_and_is_expanded() -> None:
    assert set(phrases.PATTERNS) == {i.thought for i in INTENTS if i.patterns} | {phrases.UNKNOWN_THOUGHT}
    for pattern in (line for lines in phrases.PATTERNS.values() for line in lines):
        texts = {small_talk.expand(random.Random(seed), pattern) for seed in range(20)}
        assert all(text and "|" not in text and "  " not in text for text in texts)
        assert "|" not in pattern or len(texts) > 1


def test_no_question_has_two_answers() -> None:
    answers: dict[str, str] = {}
    rng = random.Random(0)
    for intent in INTENTS:
        for question in (*intent.questions, *expanded(intent, 60)):
            key = question.lower().strip(" ?!.¿¡")
            assert answers.setdefault(key, intent.answer) == intent.answer, question
    unknown = [small_talk.expand(rng, line) for line in phrases.UNKNOWN_PATTERNS for _ in range(60)]
    unknown += [*phrases.UNKNOWN_FRAMES, *phrases.OTHER_LANGUAGES_UNKNOWN, *phrases.TOPICS, *phrases.PEOPLE]
    assert [text for text in unknown if text.lower().strip(" ?!.¿¡") in answers] == []


def test_every_slot_of_a_question_is_filled() -> None:
    rng = random.Random(0)
    questions = [q for intent in INTENTS for q in (*intent.questions, *intent.patterns)]
    questions = [
        small_talk.expand(rng, q) for q in (*questions, *phrases.UNKNOWN_FRAMES, *phrases.UNKNOWN_PATTERNS)
    ]
    for question in questions:
        filled = small_talk.fill(rng, question, ["Rome"])
        assert filled
        assert "{" not in filled
        assert small_talk.roughen(rng, filled)

"""The held-out questions of newcomers: held out indeed, and marked by pieces that answer them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

import pytest
import typer

from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.chat.commands.registry import ALIASES, COMMANDS
from training import phrases
from training.data import intent_turn, unknown_turn
from training.held_out import bare, gist, held_out_gists, is_held_out
from training.mixed_messages import MIXED_MESSAGES
from training.newcomers import FIRST_MESSAGES, PACKAGE_QUESTIONS, REFUSAL, answer_in, is_right

ALL = [*PACKAGE_QUESTIONS, *FIRST_MESSAGES, *MIXED_MESSAGES]


def texts_in(value: object) -> Iterator[str]:
    """Every text in lists, mappings and dataclasses."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, dict):
        yield from texts_in([*value, *value.values()])
    elif is_dataclass(value) and not isinstance(value, type):
        yield from texts_in([getattr(value, field.name) for field in fields(value)])


def test_a_hundred_of_each_and_none_twice():
    assert len(PACKAGE_QUESTIONS) == len(FIRST_MESSAGES) == len(MIXED_MESSAGES) == 100
    assert len({bare(question) for question, _ in ALL}) == 300
    assert all(accepted and all(accepted) for _, accepted in ALL)


def test_none_is_a_question_of_the_training_data():
    trained = {
        bare(text) for name, value in vars(phrases).items() if name[0] != "_" for text in texts_in(value)
    }
    assert {bare("how do I exit"), bare("Are you Claude?")} <= trained
    assert [question for question, _ in ALL if bare(question) in trained] == []


def test_patterns_and_slots_never_make_one_of_them(monkeypatch):
    """Some patterns stand for held-out questions among others: those are drawn again."""
    monkeypatch.setattr("training.small_talk.roughen", lambda _rng, question: question)
    rng = random.Random(0)
    intents = [*phrases.ABOUT_ME, *phrases.COURTESIES, *phrases.PACKAGE, *phrases.NO_TOOL]
    made = [intent_turn(rng, intents).question for _ in range(8000)]
    made += [unknown_turn(rng).question for _ in range(2000)]
    assert [question for question in made if gist(question) in held_out_gists()] == []
    version = replace(intents[0], questions=("is the version installed here?", "which version"), patterns=())
    assert is_held_out(version.questions[0])
    assert {intent_turn(rng, [version]).question for _ in range(20)} == {"which version"}


def test_little_words_and_their_order_make_no_other_question():
    assert all(is_held_out(question) for question, _ in ALL)
    assert is_held_out("Please, what is the TALLEST mountain?") is is_held_out("mountain, tallest")
    assert not is_held_out("what is the tallest building")
    assert not is_held_out("how do i")


def test_repeating_the_question_is_no_answer():
    sums = [
        (question, accepted)
        for question, accepted in [*FIRST_MESSAGES, *MIXED_MESSAGES]
        if accepted[0].strip("-").isdecimal()
    ]
    assert len(sums) > 30
    assert [
        question for question, accepted in [*PACKAGE_QUESTIONS, *sums] if is_right(question, accepted)
    ] == []


def test_accepted_commands_and_options_exist():
    group = typer.main.get_command(app)
    parameters = [option for item in [group, *group.commands.values()] for option in item.params]
    names = {"--help", *COMMANDS, *ALIASES}
    names |= {name for option in parameters for name in [*option.opts, *option.secondary_opts]}
    pieces = {piece for _, accepted in ALL for piece in accepted}
    used = {piece.split()[0] for piece in pieces if re.match(r"/|--?[a-z]", piece)}
    subcommands = {piece.split()[1] for piece in pieces if piece.startswith("mlx-qwen3 ")}
    assert len(used) > 50
    assert used - names == set()
    assert subcommands - set(group.commands) == set()


@pytest.mark.parametrize(
    ("reply", "accepted", "right"),
    [
        ("Type /save NAME.", ("/save",), True),
        ("I save nothing.", ("/save",), False),
        ("<think>\nI name /save.\n</think>\n\nPress Ctrl-D.", ("/save",), False),
        ("<think>\nI name /save", ("/save",), False),
        ("Use `--thinking-budget N`.", ("--think",), False),
        ("2 + 2 = 4.", ("4",), True),
        ("9 - 12 = −3.", ("-3",), True),
        ("456+789=1,245", ("1245",), True),
        ("2 + 2 = 42.", ("4",), False),
        ("2 + 2 = 4.5", ("4",), False),
        ("2 + 2 = -4.", ("4",), False),
        ("I am a tiny demo and do NOT know that.", REFUSAL, True),
        ("Paris is a city.", REFUSAL, False),
        ("", REFUSAL, False),
    ],
)  # fmt: skip
def test_what_counts_as_right(reply, accepted, right):
    assert is_right(reply, accepted) is right


def test_the_answer_is_what_follows_the_thinking():
    assert answer_in("<think>\n1\n</think>\n\n2") == "\n\n2"
    assert answer_in("2") == "2"

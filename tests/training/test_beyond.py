"""Sums that are refused: none of them has a form that was learned, and three numbers are worked out truly."""

import random
import re
from fractions import Fraction

import pytest

from training.arithmetic import (
    FACTS,
    SIGN,
    STUCK,
    Problem,
    ask,
    compound_of,
    sample_beyond,
    sample_compound,
    sample_stuck_compound,
)
from training.beyond import FORMS, beyond_question
from training.data import arithmetic_turn, beyond_turn, question_turn, quick_turn
from training.phrases import TOO_HARD

KINDS = {sign: kind for kind, sign in SIGN.items()}
TYPED = {"*": "×", "x": "×", "X": "×", "·": "×", "/": "÷", ":": "÷", "−": "-", "–": "-"}


def value(text: str) -> Fraction:
    """What the text is worth, by Python's own rules."""
    numbers = re.sub(r"\d+", r"Fraction(\g<0>)", text)
    return eval(numbers.replace("×", "*").replace("÷", "/"), {"Fraction": Fraction})


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_form_that_was_not_learned_is_never_one_within_reach(form) -> None:
    rng = random.Random(0)
    for text in (form(rng) for _ in range(2000)):
        if found := re.fullmatch(r"(\d+) ?([-+*x×X·/÷:−–]) ?(\d+)", text):
            kind = KINDS[TYPED.get(found[2], found[2])]
            assert not Problem(kind, int(found[1]), int(found[3])).can_be_worked_out, text
        assert not re.fullmatch(r"\(?\d+ ?[-+*/] ?\(?\d+\)? ?[-+*/] ?\d+\)?", text), text


def test_no_fact_is_ever_refused() -> None:
    facts = {fact.expression for fact in FACTS}
    rng = random.Random(1)
    typed = {beyond_question(rng).replace("*", "×").replace("/", "÷") for _ in range(5000)}
    assert facts & typed == set()
    assert not [p for p in (sample_beyond(rng) for _ in range(2000)) if p.can_be_worked_out]


def test_the_brackets_that_are_thought_do_not_change_the_value() -> None:
    rng = random.Random(2)
    for compound in [make(rng) for make in (sample_compound, sample_stuck_compound) for _ in range(2000)]:
        try:
            expected = value(compound.text)
        except ZeroDivisionError:
            assert not compound.can_be_worked_out
            continue
        assert value(compound.grouped) == expected
        if compound.can_be_worked_out:
            assert compound.thinking.endswith(f"\nResult: {expected}")
            assert compound.answer == f"{compound.text} = {expected}."


def test_what_cannot_be_worked_out_ends_where_it_is_found() -> None:
    rng = random.Random(3)
    for compound in (sample_stuck_compound(rng) for _ in range(2000)):
        assert compound.thinking.endswith(f"\n{STUCK}")
        assert question_turn(rng, compound).answer == TOO_HARD.answer
    below_zero = compound_of(3, 5, 9, "subtract", "add", "")
    assert below_zero.thinking.splitlines()[1:] == [
        "That is (3 - 5) + 9.",
        "First 3 - 5.",
        "3 - 5 = -2",
        "That makes -2.",
        "Then -2 + 9.",
        STUCK,
    ]
    assert compound_of(7, 2, 9, "divide", "add", "").thinking.endswith(f"rest 1\n{STUCK}")
    assert compound_of(7, 0, 9, "divide", "add", "").thinking.endswith(f"First 7 ÷ 0.\n{STUCK}")


def test_two_steps_are_asked_with_the_numbers_of_the_text() -> None:
    rng = random.Random(4)
    compound = compound_of(3, 4, 2, "add", "multiply", "")
    assert compound.grouped == "3 + (4 × 2)"
    assert all(re.findall(r"\d", ask(rng, compound)) == ["3", "4", "2"] for _ in range(50))


def test_refusals_are_taught_with_and_without_thinking() -> None:
    rng = random.Random(5)
    for make in (arithmetic_turn, quick_turn):
        turns = [make(rng) for _ in range(2000)]
        refused = [turn for turn in turns if turn.answer == TOO_HARD.answer]
        assert 0.1 < len(refused) / len(turns) < 0.35
    assert {beyond_turn(rng).answer for _ in range(200)} == {TOO_HARD.answer}

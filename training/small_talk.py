"""Small talk: greetings, questions about the demo and the package, and honest refusals.

So small a model does best when each question has a single right reply, so an `Intent` is a set of phrasings
with one thought and one answer. This module draws phrasings, fills them in, and adds typos.
"""

import random
import re
from collections.abc import Callable

from training.phrases import (
    CAN,
    CLOSERS,
    CODE_LANGUAGES,
    HOW,
    IS_THERE,
    LANGUAGES,
    OPENERS,
    OTHER_LANGUAGES_UNKNOWN,
    PEOPLE,
    PLACES,
    SYLLABLES,
    TOPICS,
    UNKNOWN_FRAMES,
    UNKNOWN_PATTERNS,
    WHAT,
    WHERE,
    WORDS,
    Intent,
)

PATTERN_SHARE = 0.6  # of the questions of an intent that has patterns
CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


def made_up_word(rng: random.Random) -> str:
    """An invented word: it must be copied letter by letter, and stands for what the demo cannot know."""
    return "".join(rng.choices(SYLLABLES, k=rng.randint(2, 4)))


def with_typo(rng: random.Random, text: str) -> str:
    """One letter dropped, doubled or swapped with the next."""
    if len(text) < 6:
        return text
    place = rng.randrange(1, len(text) - 2)
    drop, double = text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:]
    swap = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return rng.choice([drop, double, swap])


def expand(rng: random.Random, pattern: str) -> str:
    """One of the questions that a pattern stands for: of every `(a|b)`, one."""
    while found := CHOICE.search(pattern):
        pattern = pattern[: found.start()] + rng.choice(found[1].split("|")) + pattern[found.end() :]
    return " ".join(pattern.split())


def ask(rng: random.Random, intent: Intent) -> str:
    """A question of the intent, from its patterns or its list."""
    if intent.patterns and rng.random() < PATTERN_SHARE:
        return expand(rng, rng.choice(intent.patterns))
    return rng.choice(intent.questions)


def rephrase(rng: random.Random, question: str) -> str:
    """The same question with another beginning."""
    if question.startswith("how do I "):
        return question.replace("how do I", rng.choice(HOW), 1).lstrip()
    for beginning, others in (
        ("what is ", WHAT),
        ("can I ", CAN),
        ("where is ", WHERE),
        ("where are ", WHERE),
        ("is there a ", IS_THERE),
    ):
        if question.startswith(beginning):
            return f"{rng.choice(others)} {question.removeprefix(beginning)}"
    if question.startswith("what does ") and question.endswith(" do"):
        subject = question.removeprefix("what does ").removesuffix(" do")
        return rng.choice(
            ["explain {}", "what is {}", "what is {} for", "tell me about {}", "how do I use {}"]
        ).format(subject)
    return question


def without_a_word(rng: random.Random, question: str) -> str:
    """The same question without one or two of its words, so that no single one is relied upon."""
    words = question.split(" ")
    for _ in range(rng.randint(1, 2)):
        if len(words) > 3:
            words.pop(rng.randrange(len(words)))
    return " ".join(words)


def roughen(rng: random.Random, question: str) -> str:
    """The same question as different people type it."""
    roll = rng.random
    if roll() < 0.4:
        question = rephrase(rng, question)
    if roll() < 0.25:
        question = without_a_word(rng, question)
    if question[0].isascii() and len(question.split()) > 2:
        if roll() < 0.14:
            question = rng.choice(OPENERS) + question
        if roll() < 0.07:
            question += rng.choice(CLOSERS)
    if question[-1].isalnum() and roll() < 0.45:
        question += rng.choice("?????.!") if len(question.split()) > 1 else rng.choice("!?.")
    if roll() < 0.35:
        question = question[0].upper() + question[1:]
    elif roll() < 0.3:
        question = question.lower()
    elif roll() < 0.03:
        question = question.upper()
    if roll() < 0.06:
        question = with_typo(rng, question)
    return question


def gibberish(rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz" if rng.random() < 0.7 else "asdfghjkl;.,?!#%&qwer 0123456789"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(rng.randint(1, 4))]
    return " ".join(words).strip() or "?"


def fill(rng: random.Random, frame: str, cities: list[str]) -> str:
    """Replace every {slot} of a frame by a word of its kind."""
    makers: dict[str, Callable[[], str]] = {
        "{topic}": lambda: rng.choice(TOPICS) if rng.random() < 0.75 else made_up_word(rng),
        "{person}": lambda: rng.choice(PEOPLE) if rng.random() < 0.7 else made_up_word(rng).capitalize(),
        "{place}": lambda: (
            rng.choice(PLACES + cities) if rng.random() < 0.8 else made_up_word(rng).capitalize()
        ),
        "{city}": lambda: rng.choice(cities) if rng.random() < 0.8 else made_up_word(rng).capitalize(),
        "{year}": lambda: str(rng.randint(1000, 2030)),
        "{big}": lambda: str(rng.randint(10 ** rng.randint(3, 6), 10**7)),
        "{three}": lambda: str(rng.randint(100, 999)),
        "{two}": lambda: str(rng.randint(2, 99)),
        "{small}": lambda: str(rng.randint(1, 12)),
        "{dec}": lambda: f"{rng.randint(0, 20)}.{rng.choice([1, 2, 5, 25, 75, rng.randint(1, 99)])}",
        "{tens}": lambda: str(rng.randint(13, 99)),
        "{word}": lambda: rng.choice(WORDS) if rng.random() < 0.6 else made_up_word(rng),
        "{letter}": lambda: rng.choice("abcdefghijklmnopqrstuvwxyz"),
        "{language}": lambda: rng.choice(LANGUAGES),
        "{code}": lambda: rng.choice(CODE_LANGUAGES),
        "{any}": lambda: str(rng.randint(1, 10 ** rng.randint(1, 5))),
    }
    for slot, make in makers.items():
        while slot in frame:
            frame = frame.replace(slot, make(), 1)
    return frame


def unknown_question(rng: random.Random) -> str:
    """A frame of a question that the demo cannot answer."""
    roll = rng.random()
    if roll < 0.07:
        return rng.choice(OTHER_LANGUAGES_UNKNOWN)
    return expand(rng, rng.choice(UNKNOWN_PATTERNS)) if roll < 0.5 else rng.choice(UNKNOWN_FRAMES)

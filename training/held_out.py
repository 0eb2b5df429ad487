"""What newcomers type is held out from training: no question with the same words is ever made.

Words that carry little, such as "how", "the" or "please", do not make a difference, nor does their order.
"""

import re
from functools import cache

from training.mixed_messages import MIXED_MESSAGES
from training.newcomers import FIRST_MESSAGES, PACKAGE_QUESTIONS, UNKNOWABLE

LITTLE = frozenset(
    re.findall(
        r"\w+",
        "a an the this that it i you u me my your to of for in on with and or so is are am be do does did "
        "can could would will how what whats which please pls hi hello hey ok there here now id like want "
        "need some any im ur r",
    )
)


def bare(text: str) -> str:
    """Case-folded and without punctuation; sums keep their signs."""
    return " ".join(re.sub(r"[^\w\s+*/^()-]", "", text.casefold()).split())


def gist(text: str) -> frozenset[str]:
    """The words that carry the meaning; all words where fewer than two do."""
    words = bare(text).split()
    kept = frozenset(word for word in words if word not in LITTLE)
    return kept if len(kept) > 1 else frozenset(words)


@cache
def held_out_gists() -> frozenset[frozenset[str]]:
    messages = [question for question, _ in (*PACKAGE_QUESTIONS, *FIRST_MESSAGES, *MIXED_MESSAGES)]
    return frozenset(gist(message) for message in (*messages, *UNKNOWABLE))


def is_held_out(question: str) -> bool:
    """Whether `question` says the same, in the same words, as one that training must not see."""
    return gist(question) in held_out_gists()

"""Short strings that match the patterns of a grammar: their ends show the way out of a string.

An end that a pattern demands, such as the `bar` of `^.*bar$`, cannot be found by trying single characters.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import import_module
from typing import Any

_PATTERN = re.compile(r'"pattern": ("(?:[^"\\]|\\.)*")')
_CLASSES = {"Lu": "[A-Z]", "Ll": "[a-z]", "L": "[a-z]", "N": "[0-9]", "Nd": "[0-9]"}
_CATEGORIES = {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a", "CATEGORY_NOT_DIGIT": "a"}
_MOST_CHARACTERS = 200


@lru_cache(maxsize=32)
def string_endings(rules: str) -> tuple[bytes, ...]:
    """The ends of strings that match a pattern in `rules`, spelled as in JSON, the shortest first."""
    endings = set()
    for match in _PATTERN.finditer(rules):
        example = _example(json.loads(match[1]))[-_MOST_CHARACTERS:]
        endings |= {example[start:] for start in range(len(example))}
    spelled = {json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "ignore") for text in endings}
    return tuple(sorted(spelled, key=lambda text: (len(text), text)))


def _example(pattern: str) -> str:
    """A short string that matches `pattern`; empty for one that cannot be read."""
    pattern = re.sub(r"\\p\{(\w+)\}", lambda match: _CLASSES.get(match[1], match[0]), pattern)
    try:
        # Python's own parser of patterns; it has no public name.
        parts: Any = import_module("re._parser").parse(pattern)
        return _text(parts)
    except (re.error, ImportError, AttributeError, ValueError, OverflowError, RecursionError, TypeError):
        return ""


def _text(parts: Any) -> str:
    return "".join(_part(str(operator), argument) for operator, argument in parts)


def _part(operator: str, argument: Any) -> str:
    if operator == "LITERAL":
        return chr(argument)
    if operator == "IN":
        return _member(argument)
    if operator in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _text(argument[2]) * min(int(argument[0]), _MOST_CHARACTERS)
    if operator == "SUBPATTERN":
        return _text(argument[-1])
    if operator == "BRANCH":
        return str(min((_text(branch) for branch in argument[1]), key=len))
    return "a" if operator in ("ANY", "NOT_LITERAL") else ""


def _member(items: Any) -> str:
    """A character of a class; "a" for one that is given by what it excludes."""
    operator, argument = str(items[0][0]), items[0][1]
    if operator == "RANGE":
        return chr(argument[0])
    return chr(argument) if operator == "LITERAL" else _CATEGORIES.get(str(argument), "a")

"""Tools and calls as text for the person who approves them: different tools and calls look different.

Names, descriptions and arguments come from a server and from the model. Characters that are invisible, that
change the direction of text, or that combine with others are spelled out as <U+XXXX>.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import Any

from mlx_qwen3.errors import is_hidden
from mlx_qwen3.tools.base import Tool

MARGIN = "| "
"""Starts each line of a server's text, so that it cannot pass for one of ours."""
MAX_INDENT = 16
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.%-]+")


def visible(text: str) -> str:
    """`text` with hidden and combining characters spelled out. Line breaks and tabs stay.

    Different texts stay different: a literal "<U+" is spelled out too, and so is a character that looks
    the same as its normalized form (NFC).
    """
    text = text.replace("<U+", f"{_spelled('<')}U+")
    return "".join(char if char in "\n\t" or _is_clear(char) else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    return f"<U+{ord(char):04X}>"


@lru_cache(maxsize=4096)
def _is_clear(char: str) -> bool:
    """Whether `char` is shown as itself, whatever is beside it."""
    if is_hidden(char) or unicodedata.category(char).startswith("M"):
        return False
    if char.isascii():
        return True
    # Conjoining jamo are shown as one syllable, like the precomposed one.
    conjoining = ("HANGUL CHOSEONG", "HANGUL JUNGSEONG", "HANGUL JONGSEONG")
    return unicodedata.normalize("NFC", char) == char and not unicodedata.name(char, "").startswith(
        conjoining
    )


def visible_lines(text: str) -> list[str]:
    """The lines of `text`, each with tabs and spaces that could not be counted spelled out too."""
    return [_visible_spaces(visible(line).replace("\t", _spelled("\t"))) for line in text.split("\n")]


def _visible_spaces(line: str) -> str:
    """`line` with its indentation; at every other place, of several spaces only the last is not spelled."""
    indent = min(len(line) - len(line.lstrip(" ")), MAX_INDENT)
    return line[:indent] + re.sub(r" (?= |$)", _spelled(" "), line[indent:])


def key_text(key: str) -> str:
    r"""A tool's key: as it is if it is plain ASCII, else quoted, with \uXXXX for all other characters."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    # A literal "<U+" is spelled out too, or it would look like a space that is.
    return _visible_spaces(visible(json.dumps(key).replace("\x7f", r"\u007f")))


def json_text(value: Any) -> str:
    """`value` as one line of JSON in which everything can be seen."""
    return visible_lines(json.dumps(value, ensure_ascii=False, default=str))[0]


def describe(tool: Tool) -> str:
    """A tool in full, for a person. Lines of the server's text start with MARGIN; all others are ours."""
    parts = {
        "Its server:": tool.origin,
        "Description:": tool.description or "(no description)",
        "Parameters:": json.dumps(tool.parameters, ensure_ascii=False, default=str),
        "It says of itself:": tool.annotations
        and json.dumps(dict(tool.annotations), ensure_ascii=False, default=str),
    }
    lines = [f"Tool {key_text(tool.key)}"]
    for title, text in parts.items():
        if text:
            lines += [title, *(MARGIN + line for line in visible_lines(str(text)))]
    return "\n".join(lines)

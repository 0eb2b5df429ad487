"""All output of the command line goes through here and console.py, so no text can control the terminal.

File names, errors, what servers send and what a model writes may hold escape codes, bidi overrides and
invisible characters. A test keeps every other module in cli/ from printing by itself.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mlx_qwen3.errors import is_hidden, one_line, shortened

# Characters that look like nothing, but join the letters of Persian and the parts of an emoji. They stay
# between two such characters.
_JOINERS = re.compile("[\u200c\u200d\ufe0e\ufe0f]")


class _Printable(dict[int, str]):
    """Table for str.translate: code point -> what is printed in its place. Filled as it is used."""

    def __missing__(self, code: int) -> str:
        self[code] = shown = _shown(chr(code))
        return shown


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if char in "\n\t" or category == "Zs" or not is_hidden(char):
        return char
    if category in ("Zl", "Zp"):
        return " "
    if category in ("Co", "Cs"):
        return "\ufffd"
    # Plane 1 has the emoji that are newer than Python's tables.
    return char if category == "Cn" and ord(char) >> 16 == 1 else ""


_PRINTABLE = _Printable()


def printable(text: str, is_piece: bool = False) -> str:
    """`text` without the characters that control a terminal or are invisible. Line breaks and tabs stay.

    is_piece: joiners stay at the ends too, as the text before or after may be what they join.
    """
    if text.isascii() and text.isprintable():
        return text
    if not _JOINERS.search(text):
        return text.translate(_PRINTABLE)
    return "".join(printable_characters(text, is_piece))


def printable_characters(text: str, is_piece: bool = False) -> list[str]:
    """For each character of `text` what `printable` has of it; "" for one that it leaves out."""
    return [
        char if _joins(text, index, is_piece) else _PRINTABLE[ord(char)] for index, char in enumerate(text)
    ]


def _joins(text: str, index: int, is_piece: bool) -> bool:
    """Whether the character at `index` is a joiner or variation selector that belongs where it is."""
    char = text[index]
    if not _JOINERS.match(char):
        return False
    if index in (0, len(text) - 1) and is_piece:
        return True
    if not index:
        return False
    before = unicodedata.category(text[index - 1])
    after = unicodedata.category(text[index + 1]) if index + 1 < len(text) else ""
    if char in "\ufe0e\ufe0f":
        return before == "So"
    is_emoji = (before in ("So", "Sk") or text[index - 1] == "\ufe0f") and after == "So"
    return is_emoji or (before in ("Lo", "Mn") and after == "Lo")


def write(text: str) -> None:
    """Write a piece of the program's result to stdout: unchanged, or printable if stdout is a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Write a line about what was done to stdout."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def write_json(line: str, file: IO[str] | None = None) -> None:
    r"""Write a line of JSON, to stdout if no file is given.

    Characters that a terminal could obey, and those that the file's encoding lacks, become \uXXXX, which is
    the same JSON.
    """
    file = sys.stdout if file is None else file
    text = _escaped(line)
    try:
        text.encode(getattr(file, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = "".join(char if char.isascii() else _json_escape(char) for char in text)
    file.write(text + "\n")
    file.flush()


def _escaped(line: str) -> str:
    if line.isascii():
        return line.replace("\x7f", "\\u007f")
    return "".join(_json_escape(char) if is_hidden(char) else char for char in line)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def write_note(text: str) -> None:
    """Write one line to stderr, of limited length."""
    sys.stderr.write(error_text(text) + "\n")
    sys.stderr.flush()


def write_error(text: str) -> None:
    """Write an error to stderr, in one line."""
    write_note(f"error: {text}")


def error_text(text: str) -> str:
    """An error as it is shown: one printable line of limited length."""
    return shortened(printable(one_line(text)))


def write_codes(codes: str, file: IO[str] | None = None) -> None:
    """Write escape codes of our own, and text that a console rendered, to a terminal."""
    file = file or sys.stdout
    file.write(codes)
    file.flush()


def program() -> str:
    """What a user types to start this program: its name, or where no shell finds that, its path."""
    beside = Path(sys.executable).parent / "mlx-qwen3"
    if shutil.which("mlx-qwen3") or not beside.exists():
        return "mlx-qwen3"
    with suppress(ValueError):  # not below the working folder
        beside = beside.relative_to(Path.cwd())
    return shlex.quote(str(beside))


def ask(prompt: str) -> str:
    """A line typed by the user. Raises EOFError for Ctrl-D."""
    return input(printable(prompt))


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Python's hook for warnings: one line on stderr."""
    write_note(f"warning: {message}")

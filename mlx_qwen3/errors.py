"""The package's exceptions. Each message is one line: what is wrong, where, and what to do about it.

    Qwen3Error
    |- ConfigError              config.json is broken, or describes a model this package does not run
    |- CheckpointError          weights are missing, cut off, misnamed or of the wrong shape
    |  `- ModelNotFoundError    no such folder, short name or hub repository, or no network
    |- TokenizerError           tokenizer.json is missing or broken
    |- TemplateError            the chat template is missing, broken or tried to leave its sandbox
    |- MessageError             a conversation that cannot be a prompt (roles, missing content)
    |  `- PromptTooLongError    the prompt leaves no room in the context for an answer
    |- SamplingError            a sampling parameter is out of its range
    |- CacheError               a cache cannot do what was asked, or does not fit the model
    |- InsufficientMemoryError  the model and its cache need more memory than is available
    |- ConversionError          a conversion cannot start or finish
    |- ToolError                a tool, a tool server or their configuration cannot be used
    |- BenchmarkError           a measurement cannot be made
    |- SchemaError              a JSON schema cannot be used, or an answer failed its model's checks
    `- EngineError              the engine was closed, or its thread died
       |- DistributedError      a model cannot be split, or one of its machines failed
       `- LoadCancelledError    loading a model was cancelled, as the caller asked

An error that knows a way out carries it as data in `suggestions`. `str(error)` words them as Python
arguments; another interface words them its own way with `error.line(...)`.
"""

from __future__ import annotations

import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

Suggestion = Mapping[str, object]
"""Parameters of the call that failed, with values that would work. `...` is a value the user chooses."""

MAX_MESSAGE_CHARACTERS = 300


class Qwen3Error(Exception):
    """Base of everything this package raises on purpose. `str(error)` is one line for a person.

    Attributes:
        problem: What is wrong and where, without the suggestions.
        suggestions: Alternatives, any of which would help; each is a set of parameters to pass together.
    """

    def __init__(self, problem: str = "", suggestions: Iterable[Suggestion] = ()):
        # Problems quote files and servers, which may hold control characters or be of any length.
        self.problem = shortened(one_line(problem))
        super().__init__(self.problem)
        self.suggestions = tuple(suggestions)

    def line(self, words: Callable[[Suggestion], str]) -> str:
        """The problem and the suggestions in one line; `words` spells a suggestion."""
        if not self.suggestions:
            return self.problem
        *most, last = [words(suggestion) for suggestion in self.suggestions]
        return f"{self.problem}; try {', '.join(most)}{' or ' if most else ''}{last}"

    def __str__(self) -> str:
        return self.line(_as_arguments)


def one_line(error: object, limit: int | None = None) -> str:
    """`error`, or any text, as one line of printable characters, cut to `limit` of them.

    An exception without a message gives the name of its type.
    """
    text = str(error)
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if is_hidden(char) else char for char in text)
    line = " ".join(text.split())[:limit]
    return line or (type(error).__name__ if isinstance(error, BaseException) else "")


def install_command(extra: str) -> str:
    """The command that installs what `extra` of this package needs, into the Python that runs.

    It names the libraries themselves: the package may have been installed from a folder.
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = [line.partition(";") for line in requires("mlx-qwen3") or ()]
    except PackageNotFoundError:
        lines = []
    wanted = [
        name.strip()
        for name, _, marker in lines
        if re.search(f"extra == ['\"]{re.escape(extra)}['\"]", marker)
    ]
    packages = wanted or [f"mlx-qwen3[{extra}]"]
    return " ".join([shlex.quote(sys.executable), "-m pip install", *(f"'{name}'" for name in packages)])


def shortened(line: str, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """`line`, or its beginning and its end if it has more than `limit` characters."""
    if len(line) <= limit:
        return line
    end = limit // 2
    return f"{line[: limit - end - 5]} ... {line[-end:]}"


@lru_cache(maxsize=4096)
def is_hidden(char: str) -> bool:
    """Whether a terminal shows nothing, or no mark of its own, for `char`: all but a space is meant.

    Controls, bidi and other format characters, surrogates, private and unassigned code points, line and
    paragraph separators, spaces of other widths; and letters, marks and symbols that are invisible, which
    only their names tell: fillers, joiners, variation selectors, inherent vowels, blanks.
    """
    if char == " ":
        return False
    if unicodedata.category(char) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"):
        return True
    words = unicodedata.name(char, "").replace("-", " ").split()
    return not char.isascii() and not _INVISIBLE.isdisjoint(words)


_INVISIBLE = {"FILLER", "JOINER", "SELECTOR", "INHERENT", "BLANK"}


def _as_arguments(suggestion: Suggestion) -> str:
    return " with ".join(
        f"{name}={'...' if value is ... else repr(value)}" for name, value in suggestion.items()
    )


class ConfigError(Qwen3Error):
    """config.json cannot be read, or describes a model this package does not run."""


class CheckpointError(Qwen3Error):
    """A checkpoint's files are missing, truncated, or do not hold exactly what the model needs."""


class ModelNotFoundError(CheckpointError):
    """No folder, short name or hub repository of that name can be reached."""


class TokenizerError(Qwen3Error):
    """tokenizer.json is missing, or cannot be read."""


class TemplateError(Qwen3Error):
    """The chat template is missing, does not render, or reaches outside its sandbox."""


class MessageError(Qwen3Error):
    """A message has no role or content, or an unknown role."""


class PromptTooLongError(MessageError):
    """The prompt leaves no room in the context for an answer."""


class SamplingError(Qwen3Error):
    """A sampling parameter is out of its range."""


class CacheError(Qwen3Error):
    """A cache cannot do what was asked, or does not belong to this model."""


class InsufficientMemoryError(Qwen3Error):
    """A model and its cache need more memory than is available."""


class ConversionError(Qwen3Error):
    """A conversion cannot start, or stopped before its output was complete."""


class ToolError(Qwen3Error):
    """A tool, a tool server or their configuration cannot be used."""


class BenchmarkError(Qwen3Error):
    """A measurement cannot be made: nothing to compare with, or its process failed."""


class SchemaError(Qwen3Error):
    """A JSON schema cannot become a grammar, or an answer failed the checks of its Pydantic model."""


class EngineError(Qwen3Error):
    """The engine is closed, or its thread stopped."""


class DistributedError(EngineError):
    """A model cannot be split over these machines, or one of them failed, stalled or differs."""


class LoadCancelledError(EngineError):
    """Loading a model, or downloading it, was cancelled as the caller asked."""

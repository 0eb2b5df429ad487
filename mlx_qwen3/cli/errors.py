"""Words errors for the command line: suggestions become flags and slash commands."""

from __future__ import annotations

import shlex

from mlx_qwen3.errors import PromptTooLongError, Qwen3Error, Suggestion


def error_line(error: Qwen3Error) -> str:
    """`error` in one line that names flags in place of Python parameters."""
    return error.line(_as_flags)


def chat_error_line(error: Qwen3Error) -> str:
    """`error_line`, with the slash command that helps in a chat."""
    hint = ", or start a new conversation with /clear" if isinstance(error, PromptTooLongError) else ""
    return error_line(error) + hint


def _as_flags(suggestion: Suggestion) -> str:
    """A flag for each parameter; None is a flag that is left out."""
    return " ".join(_as_flag(name, value) for name, value in suggestion.items() if value is not None)


def _as_flag(parameter: str, value: object) -> str:
    """`--kv-bits 4`, `--force` for True, or `--context ...` for a value the user chooses."""
    flag = f"--{parameter.replace('_', '-')}"
    return flag if value is True else f"{flag} {'...' if value is ... else shlex.quote(str(value))}"

"""Words errors for the command line: suggestions become flags and slash commands."""

from __future__ import annotations

from mlx_qwen3.errors import PromptTooLongError, Qwen3Error, Suggestion

FLAGS = {"calibration": "--calibrate"}
"""Parameters whose flag is not their own name."""


def error_line(error: Qwen3Error) -> str:
    """`error` in one line that names flags in place of Python parameters."""
    return error.line(_as_flags)


def chat_error_line(error: Qwen3Error) -> str:
    """`error_line`, with the slash command that helps in a chat."""
    hint = ", or start a new conversation with /clear" if isinstance(error, PromptTooLongError) else ""
    return error_line(error) + hint


def _as_flags(suggestion: Suggestion) -> str:
    return " ".join(
        flag if value is True else f"{flag} {'...' if value is ... else value}"
        for flag, value in ((_flag(name), value) for name, value in suggestion.items())
    )


def _flag(parameter: str) -> str:
    return FLAGS.get(parameter, f"--{parameter.replace('_', '-')}")

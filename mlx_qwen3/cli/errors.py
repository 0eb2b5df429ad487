"""Words errors for the command line: suggestions become flags and slash commands."""

from __future__ import annotations

import difflib
import shlex
from typing import Any

from mlx_qwen3.cli.output import program
from mlx_qwen3.errors import PromptTooLongError, Qwen3Error, Suggestion

# What a value has to be, by the type of pydantic's error and the bound that comes with it.
_WANTED = {
    "int_parsing": "takes a whole number",
    "int_from_float": "takes a whole number",
    "float_parsing": "takes a number",
    "finite_number": "takes a finite number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
}


def error_line(error: Qwen3Error) -> str:
    """`error` in one line that names flags in place of Python parameters."""
    return error.line(_as_flags)


def chat_error_line(error: Qwen3Error) -> str:
    """`error_line`, with the slash command that helps in a chat."""
    hint = ", or start a new conversation with /clear" if isinstance(error, PromptTooLongError) else ""
    return error_line(error) + hint


def is_usage_error(error: Exception) -> bool:
    """Whether Typer could not read the arguments. Its class moves from version to version; this does not."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def usage_line(error: Any) -> str:
    """An error of Typer's in one line: what is wrong with the arguments, and what to do."""
    context: Any = getattr(error, "ctx", None)
    message = str(error.message).removesuffix(".")
    name = "" if context is None or context.parent is None else str(context.info_name)
    param, option = getattr(error, "param", None), getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        return f"{name or program()} has no option {option}; {_nearest(error.possibilities, name)}"
    if option is not None:  # its value is missing, or it takes none
        return f"{option} takes no value" if "not take" in message else f"{option} needs a value after it"
    if type(error).__name__ == "MissingParameter" and param is not None:
        return f"{name} needs {_name(param)}: {_described(param)}"
    if param is not None:
        return f"{_name(param)} {_wrong_value(error, message)}"
    if hint := getattr(error, "param_hint", None):
        return f"{hint} {message}"
    if "unexpected extra argument" in message:
        words = message.partition("(s) (")[2].removesuffix(")")
        takes_prompt = any("-p" in known.opts for known in context.command.params)
        hint = "a prompt goes after -p" if takes_prompt else f"{_help(name)} says what it takes"
        if words.split()[0] in ("pull", "rm"):  # in other programs, parts of the command for models
            hint = f"did you mean `{program()} {words}`?"
        return f"{name} takes no {words!r}; {hint}"
    return message


def unknown_command(name: str, names: list[str]) -> str:
    """What to say of a command that is not there."""
    return f"there is no command {name!r}; {_nearest(difflib.get_close_matches(name, names), '')}"


def _nearest(names: list[str] | None, command: str) -> str:
    return f"did you mean {' or '.join(sorted(names))}?" if names else f"{_help(command)} lists them"


def _help(command: str) -> str:
    return f"`{' '.join(filter(None, [program(), command]))} --help`"


def _described(param: Any) -> str:
    """The help of an argument, as the end of a sentence."""
    text = str(param.help or "its help says more").removesuffix(".")
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def _name(param: Any) -> str:
    """As a user writes it: `--model`, or FILE for an argument."""
    is_option = param.param_type_name == "option"
    return max(param.opts, key=len) if is_option else str(param.name).upper()


def _wrong_value(error: Any, message: str) -> str:
    """What a value has to be, and what it is."""
    details = getattr(error.__cause__, "errors", None)
    first = details()[0] if details is not None else {}
    if (wanted := _WANTED.get(first.get("type", ""))) is None:
        return f"cannot be that: {message}"
    value = str(first["input"])
    return f"{wanted.format(**first.get('ctx', {}))}, not {value if _is_number(value) else repr(value)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_flags(suggestion: Suggestion) -> str:
    """A flag for each parameter; None is a flag that is left out."""
    return " ".join(_as_flag(name, value) for name, value in suggestion.items() if value is not None)


def _as_flag(parameter: str, value: object) -> str:
    """`--kv-bits 4`, `--force` for True, or `--context ...` for a value the user chooses."""
    flag = f"--{parameter.replace('_', '-')}"
    return flag if value is True else f"{flag} {'...' if value is ... else shlex.quote(str(value))}"

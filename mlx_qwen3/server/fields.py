"""Reads the fields of a JSON body. What was not read is an error: no field is ignored without a word."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mlx_qwen3.server.errors import RequestError, bad_request

NOTHING: Any = object()


class Fields:
    """The fields of one JSON object. Each is read once; `finish` refuses those that were not read.

    A field that is null is as one that is missing.
    """

    def __init__(self, value: Any, path: str = ""):
        """value: the JSON object. path: where it is in the request, for messages."""
        if not isinstance(value, Mapping):
            raise bad_request(f"{path or 'the request'} must be a JSON object", path or None)
        self._values, self._path = dict(value), path
        self._read: set[str] = set()

    def where(self, name: str) -> str:
        """The full name of a field, such as `tools[0].function.name`."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def value(self, name: str, default: Any = None) -> Any:
        """The value, of any JSON type."""
        self._read.add(name)
        value = self._values.get(name)
        return default if value is None else value

    def text(self, name: str, default: Any = None) -> Any:
        """A string."""
        return self._typed(name, default, "a string", lambda value: isinstance(value, str))

    def required_text(self, name: str) -> str:
        """A string that must be there."""
        value: str | None = self.text(name)
        if value is None:
            raise self.error(name, "is missing")
        return value

    def flag(self, name: str, default: Any = None) -> Any:
        """True or false."""
        return self._typed(name, default, "true or false", lambda value: isinstance(value, bool))

    def integer(self, name: str, default: Any = None, low: int | None = None, high: int | None = None) -> Any:
        """A whole number between `low` and `high`. 5.0 is one too."""
        value = self._typed(name, default, "a whole number", _is_whole)
        return value if value is default else self._within(name, int(value), low, high)

    def number(
        self, name: str, default: Any = None, low: float | None = None, high: float | None = None
    ) -> Any:
        """A number between `low` and `high`."""
        value = self._typed(name, default, "a number", _is_number)
        return value if value is default else self._within(name, value, low, high)

    def choice(self, name: str, choices: Collection[str], default: Any = None) -> Any:
        """One of `choices`."""
        named = ", ".join(choices)
        return self._typed(
            name, default, f"one of {named}", lambda value: isinstance(value, str) and value in choices
        )

    def list(self, name: str, default: Any = None, most: int | None = None) -> Any:
        """A list of at most `most` items."""
        value = self._typed(name, default, "a list", lambda value: isinstance(value, list))
        if value is not default and most is not None and len(value) > most:
            raise bad_request(f"{self.where(name)} may have {most} items, not {len(value)}", self.where(name))
        return value

    def object(self, name: str, default: Any = None) -> Any:
        """A JSON object, as `Fields` of its own; `default` if there is none."""
        value = self.value(name, NOTHING)
        return default if value is NOTHING else Fields(value, self.where(name))

    def mapping(self, name: str, default: Any = None) -> Any:
        """A JSON object, as a dict."""
        return self._typed(name, default, "a JSON object", lambda value: isinstance(value, dict))

    def only(self, name: str, *allowed: Any) -> None:
        """A field that may be there, but only with a value that changes nothing; others are refused."""
        value = self.value(name, NOTHING)
        if value is NOTHING or any(value == item and type(value) is type(item) for item in allowed):
            return
        said = f" other than {', '.join(map(repr, allowed))}" if allowed else ""
        raise bad_request(f"{self.where(name)} is not supported{said}", self.where(name), "unsupported_field")

    def skip(self, *names: str) -> None:
        """Fields that concern the client or its provider and not the answer, such as `user`."""
        self._read.update(names)

    def finish(self) -> None:
        """Refuse what was not read. Raises RequestError with the first of them."""
        unknown = [
            name for name, value in self._values.items() if name not in self._read and value is not None
        ]
        if unknown:
            where = self.where(str(unknown[0]))
            raise bad_request(f"{where} is not a field that this server knows", where, "unknown_field")

    def error(self, name: str, problem: str) -> RequestError:
        """An error about a field: its full name and `problem`."""
        return bad_request(f"{self.where(name)} {problem}", self.where(name))

    def _typed(self, name: str, default: Any, kind: str, is_kind: Any) -> Any:
        value = self.value(name, NOTHING)
        if value is NOTHING:
            return default
        if not is_kind(value):
            raise self.error(name, f"must be {kind}, not {_shown(value)}")
        return value

    def _within(self, name: str, value: Any, low: float | None, high: float | None) -> Any:
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"at most {high}" if low is None else None
            raise self.error(name, f"must be {limits or f'between {low} and {high}'}, not {value}")
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_whole(value: Any) -> bool:
    return _is_number(value) and abs(value) < 2**63 and value == int(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} of {len(text)} characters"

"""`functools.partial`, callable objects and bound methods are tools."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated

import pytest

from mlx_qwen3.events import ToolCall
from mlx_qwen3.tools import Decision, ToolBox, ToolError, ToolOutput, tool


def scale(value: int, factor: int = 2, *, key: str = "") -> str:
    """Scale a value.

    value: what is scaled
    factor: how much
    """
    return f"{value * factor}{key}"


async def scale_slowly(value: int, factor: int) -> int:
    """Scale a value, slowly."""
    await asyncio.sleep(0)
    return value * factor


class Greeter:
    """Greets people."""

    def __init__(self, greeting: str):
        self.greeting = greeting
        self.name = "not the tool's name"
        self.timeout = "not a timeout"

    def __call__(self, person: Annotated[str, "whom to greet"], times: int = 1) -> str:
        return ", ".join([f"{self.greeting} {person}"] * times)

    def method(self, person: str) -> str:
        """Greet by a method."""
        return self(person)

    @classmethod
    def made(cls, greeting: str) -> str:
        """Greet no one."""
        return cls(greeting)("all")

    @staticmethod
    def plain(count: int) -> int:
        """Count."""
        return count


class Slow:
    async def __call__(self, person: str) -> str:
        """Greet slowly.

        person: whom
        """
        await asyncio.sleep(0)
        return f"... {person}"


def call(function, **arguments) -> ToolOutput:
    return asyncio.run(tool(function).call(arguments))


def test_a_partial_is_its_function_without_what_is_bound():
    made = tool(functools.partial(scale, factor=3, key="secret"))
    assert made.name == "scale"
    assert made.description == "Scale a value."
    assert made.parameters["properties"] == {"value": {"type": "integer", "description": "what is scaled"}}
    assert made.parameters["required"] == ["value"]
    assert asyncio.run(made.call({"value": "5"})).text == "15secret"
    assert "secret" not in str(made.definition())
    assert made(5) == "15secret"


def test_what_is_bound_cannot_be_given():
    assert call(functools.partial(scale, key="secret"), value=1, key="stolen").is_error


def test_a_partial_of_positions_and_of_partials():
    assert call(functools.partial(scale, 7)).text == "14"
    nested = functools.partial(functools.partial(scale, 7), factor=1)
    assert call(nested).text == "7"
    assert tool(nested).parameters["properties"].keys() == {"key"}


def test_a_partial_of_an_async_function():
    assert call(functools.partial(scale_slowly, factor=4), value=2).text == "8"


def test_a_partial_may_have_a_name_and_a_docstring_of_its_own():
    named = functools.partial(scale, factor=10)
    named.__doc__ = "Multiply by ten."
    named.__name__ = "times_ten"
    assert (tool(named).name, tool(named).description) == ("times_ten", "Multiply by ten.")
    assert tool(functools.partial(scale), name="other").name == "other"


def test_a_callable_object():
    made = tool(Greeter("hello"))
    assert (made.name, made.description, made.timeout) == ("Greeter", "Greets people.", 60)
    assert made.parameters["properties"]["person"] == {"type": "string", "description": "whom to greet"}
    assert asyncio.run(made.call({"person": "Ada", "times": 2})).text == "hello Ada, hello Ada"
    assert made("Ada") == "hello Ada"


def test_an_async_callable_object_described_by_its_method():
    made = tool(Slow())
    assert made.description == "Greet slowly."
    assert made.parameters["properties"]["person"]["description"] == "whom"
    assert asyncio.run(made.call({"person": "Ada"})).text == "... Ada"


def test_partials_of_objects_and_methods():
    assert call(functools.partial(Greeter("hi"), times=2), person="Ada").text == "hi Ada, hi Ada"
    assert call(functools.partial(Greeter("hi").method, "Bob")).text == "hi Bob"
    assert call(Greeter("hi").method, person="Bob").text == "hi Bob"
    assert call(Greeter.made, greeting="yo").text == "yo all"
    assert call(Greeter.plain, count=3).text == "3"
    assert tool(functools.partial(Greeter("hi"), times=2)).name == "Greeter"


def test_a_box_takes_them_all():
    box = ToolBox([functools.partial(scale, factor=3), Greeter("hello"), Slow(), Greeter("hi").method])
    assert box.names == {"scale", "Greeter", "Slow", "method"}
    (result,) = box.run([ToolCall(0, "scale", {"value": 1}, "")], lambda request: Decision(True))
    assert result.text == "3"


def test_attributes_of_a_function_stay_its_own():
    def described(a: int) -> int:
        """Return it."""
        return a

    described.name, described.parameters = "other", {}
    made = tool(described)
    assert made.name == "described"
    assert made.parameters["properties"] == {"a": {"type": "integer"}}


@pytest.mark.parametrize(
    "value",
    [5, "text", functools.partial(lambda a: a), dict.get, len],
    ids=["number", "text", "partial", "method", "builtin"],
)
def test_what_has_no_types_is_one_clear_line(value):
    with pytest.raises(ToolError) as caught:
        tool(value)
    assert "\n" not in str(caught.value)

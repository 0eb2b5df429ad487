"""Python functions as tools: their schemas, the checking of arguments, what they give back."""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pydantic
import pytest

from mlx_qwen3.tools import ToolError, ToolOutput, tool
from mlx_qwen3.tools.builtin import calculator, get_time


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class Place(pydantic.BaseModel):
    city: str
    title: str = ""


class Tree(pydantic.BaseModel):
    name: str
    children: list[Tree] = []


@tool
def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    """Get the weather.

    It rains often.

    Args:
        city: The city's name,
            as people write it.
        days (int): How many days.

    Returns:
        What it will be.
    """
    return {"city": city, "days": days, "unit": unit}


def call(some_tool, **arguments) -> ToolOutput:
    return asyncio.run(some_tool.call(arguments))


def test_schema_and_description_come_from_signature_and_docstring():
    assert weather.definition() == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Get the weather.\n\nIt rains often.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name, as people write it."},
                    "days": {"type": "integer", "default": 1, "description": "How many days."},
                    "unit": {"type": "string", "default": "C", "enum": ["C", "F"]},
                },
                "required": ["city"],
            },
        },
    }


def test_other_ways_to_describe_parameters():
    @tool(name="other")
    def function(a: Annotated[int, "first"], b: str, title: str, schema: str = "") -> None:
        """Does it.
        b: second
        :param title: third
        """

    properties = function.parameters["properties"]
    assert function.name == "other"
    assert function.description == "Does it."
    assert [properties[name].get("description") for name in ("a", "b", "title", "schema")] == [
        *("first", "second", "third", None)
    ]


def test_models_and_enums_are_written_out_and_made_for_the_function():
    @tool
    def go(place: Place, unit: Unit, stops: list[Place]) -> str:
        return f"{type(place).__name__} {place.city} {unit} {stops[0].title}"

    place = go.parameters["properties"]["place"]
    assert place["type"] == "object"
    assert set(place["properties"]) == {"city", "title"}
    assert "$" not in str(go.parameters)
    output = call(go, place={"city": "Rome"}, unit="celsius", stops=[{"city": "x", "title": "t"}])
    assert output == ToolOutput("Place Rome Unit.C t")


def test_a_type_that_contains_itself_keeps_its_reference():
    @tool
    def grow(tree: Tree) -> int:
        return len(tree.children)

    assert "$defs" in grow.parameters
    assert call(grow, tree={"name": "a", "children": [{"name": "b"}]}).text == "1"


def test_arguments_are_checked_and_converted():
    assert call(weather, city="Rome", days="3").text == '{"city":"Rome","days":3,"unit":"C"}'
    output = call(weather, days="many", unit="K", when="now")
    assert output.is_error
    assert "\n" not in output.text
    for part in (
        "city: Field required",
        "days: Input should be a valid integer",
        '(given: "K")',
        "when: Extra",
    ):
        assert part in output.text


def test_the_function_can_still_be_called():
    assert weather("Rome", days=2) == {"city": "Rome", "days": 2, "unit": "C"}
    assert weather.__name__ == "weather"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("a", "a"),
        (None, "Done."),
        (5, "5"),
        ([1, "é"], '[1,"é"]'),
        (Place(city="x"), '{"city":"x","title":""}'),
    ],
)
def test_results_become_text(result, text):
    @tool
    def give():
        return result

    assert call(give) == ToolOutput(text)


def test_async_functions_and_exceptions():
    @tool
    async def fail(text: str) -> str:
        await asyncio.sleep(0)
        raise RuntimeError(text)

    assert call(fail, text="no") == ToolOutput("RuntimeError: no", is_error=True)


def test_the_time_limit_holds_for_both_kinds_and_keeps_nobody_waiting():
    @tool(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(30)

    @tool(timeout=0.05)
    def stuck() -> None:
        time.sleep(30)

    begin = time.monotonic()
    assert call(slow) == ToolOutput("slow did not finish within 0.05 seconds.", is_error=True)
    assert call(stuck) == ToolOutput("stuck did not finish within 0.05 seconds.", is_error=True)
    assert time.monotonic() - begin < 25
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "tool stuck"] == [True]


def test_a_timeout_of_the_function_itself_is_its_own():
    @tool
    def times_out() -> None:
        raise TimeoutError("the printer is off")

    assert call(times_out).text == "TimeoutError: the printer is off"


def untyped(a):
    return a


def starred(*names: str) -> None:
    """Cannot be called by name."""


def unknown(a: "Nowhere") -> None:  # noqa: F821, UP037
    """Its type does not exist."""


def unjsonable(a: Callable[[], int]) -> None:
    """JSON has no functions."""


def unknowable(a: threading.Lock) -> None:
    """Neither has it locks."""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (untyped, "tool untyped: parameter a has no type"),
        (starred, "parameter *names: 'str' cannot be given by name"),
        (unknown, "tool unknown: a type cannot be read"),
        (unjsonable, "tool unjsonable: Cannot generate a JsonSchema"),
        (unknowable, "tool unknowable: "),
        (5, "@tool goes on a function, not on int"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_in_one_line(function, says):
    with pytest.raises(ToolError) as caught:
        tool(function)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"name": 5}, {"name": ""}, {"timeout": "5"}, {"timeout": 0}, {"timeout": True}]
)
def test_wrong_options_are_one_clear_line(options):
    with pytest.raises(ToolError) as caught:
        tool(**options)
    assert next(iter(options)) in str(caught.value)


def test_results_are_cut_with_a_note():
    assert ToolOutput("x" * 30).cut(30) == ToolOutput("x" * 30)
    assert ToolOutput("x" * 2030, True).cut(30).text == "x" * 30 + "\n[cut here: 2,000 more characters]"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        *(
            ("2 + 2", "4"),
            ("12345 * 6789", "83810205"),
            ("10 / 4", "2.5"),
            ("6 / 3", "2"),
            ("0.1 + 0.2", "0.3"),
        ),
        *(
            ("(2 + 3) * 4 =", "20"),
            ("2^10", "1024"),
            ("7 × 6 ÷ 2", "21"),
            ("-3 - -4", "1"),
            ("sqrt(16) + pi*0", "4"),
        ),
        *(("1 / 0", "ZeroDivisionError: division by zero"), ("two", "ValueError: two is not arithmetic")),
        *(
            ("9**9**9", "too many digits"),
            ("2 +", "not an arithmetic expression"),
            ("1e999", "not a real number"),
        ),
        *(
            ("().__class__", "not arithmetic"),
            ("__import__('os').getcwd()", "not arithmetic"),
            ("(-1)**0.5", "real"),
        ),
        *(("[1 for _ in (1,)]", "not arithmetic"), ("'a' * 99", "not arithmetic"), ("(" * 400, "not an")),
        *(
            ("1+" * 400 + "1", "too long"),
            ("factorial(9)", "not arithmetic"),
            ("9 << 99999", "not arithmetic"),
        ),
    ],
)
def test_calculator(expression, text):
    assert text in call(calculator, expression=expression).text


@pytest.mark.parametrize(
    "city", ["Paris", "paris, France", "New York", "são paulo", "Europe/Paris", "Munich", ""]
)
def test_get_time(city):
    output = call(get_time, city=city)
    assert not output.is_error
    time.strptime(output.text, "%Y-%m-%d %H:%M")


def test_get_time_of_nowhere():
    assert "no time zone known" in call(get_time, city="../../etc/passwd").text

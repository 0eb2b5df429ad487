"""Fields of a body: read once, typed, and none is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.fields import Fields


def refusal(call: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value


def test_what_nobody_read_is_named_with_its_place() -> None:
    inner = Fields({"a": 1, "b": 2}, "tools[0].function")
    inner.integer("a")
    error = refusal(inner.finish)
    assert (error.status, error.param, error.code) == (400, "tools[0].function.b", "unknown_field")


def test_null_is_as_missing() -> None:
    fields = Fields({"seed": None, "other": None})
    assert fields.integer("seed", 7) == 7
    fields.finish()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", 1),
        ("flag", "yes"),
        ("flag", 1),
        ("integer", 1.5),
        ("integer", True),
        ("integer", "1"),
        ("integer", 1e300),
        ("number", "1"),
        ("number", True),
        ("list", {}),
        ("object", []),
        ("mapping", "x"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: str, value: Any) -> None:
    error = refusal(lambda: getattr(Fields({"x": value}), kind)("x"))
    assert error.status == 400
    assert error.param == "x"
    assert "\n" not in error.message


def test_limits_and_choices() -> None:
    assert Fields({"n": 5.0}).integer("n", None, 1, 5) == 5
    assert "between 1 and 4" in refusal(lambda: Fields({"n": 5}).integer("n", None, 1, 4)).message
    assert "at least 6" in refusal(lambda: Fields({"n": 5}).integer("n", None, 6)).message
    assert "one of a, b" in refusal(lambda: Fields({"n": "c"}).choice("n", ("a", "b"))).message
    assert refusal(lambda: Fields({"n": [1, 2]}).list("n", most=1)).param == "n"


def test_a_field_that_may_only_say_what_is_done_anyway() -> None:
    for value in (False, None):
        fields = Fields({"store": value})
        fields.only("store", False)
        fields.finish()
    for value in (True, 0, "x"):
        error = refusal(lambda value=value: Fields({"store": value}).only("store", False))
        assert error.code == "unsupported_field"

"""Whatever a Python tool raises is an error result at once: no wait, no end of the program."""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import json
import sys
import time

import pydantic
import pytest

from mlx_qwen3.events import ToolCall, ToolResult
from mlx_qwen3.tools import Decision, FunctionTool, Tool, ToolBox, ToolOutput, tool


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class ExitingError(Exception):
    def __str__(self) -> str:
        sys.exit(5)


class MuteExit(SystemExit):
    def __str__(self) -> str:
        raise SystemExit(6)


class Unprintable:
    def __str__(self) -> str:
        raise SystemExit(7)

    __repr__ = __str__


def exits() -> None:
    sys.exit(2)


def exits_with_a_text() -> None:
    sys.exit("no such file")


def parses_options() -> None:
    argparse.ArgumentParser(prog="it").parse_args(["--unknown"])


def finds_nothing() -> object:
    return next(iter([]))


def is_interrupted() -> None:
    raise KeyboardInterrupt


def stops_async_iteration() -> None:
    raise StopAsyncIteration


def leaves_a_generator() -> None:
    raise GeneratorExit


def is_cancelled_inside() -> None:
    raise asyncio.CancelledError


def waits_for_cancelled_work() -> object:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.cancel()
    return future.result()


def is_mute() -> None:
    raise MuteError


def exits_when_described() -> None:
    raise ExitingError


def exits_mutely() -> None:
    raise MuteExit


def groups() -> None:
    raise BaseExceptionGroup("several", [SystemExit(1), MuteError()])


def recurses() -> object:
    return recurses()


def returns_the_unprintable() -> object:
    return Unprintable()


def returns_itself() -> object:
    endless: list[object] = []
    endless.append(endless)
    return endless


def returns_bytes() -> bytes:
    return b"\xff\xfe"


SYNC = [
    *(exits, exits_with_a_text, parses_options, finds_nothing, is_interrupted, stops_async_iteration),
    *(leaves_a_generator, is_cancelled_inside, waits_for_cancelled_work, is_mute, exits_when_described),
    *(exits_mutely, groups, recurses, returns_the_unprintable, returns_itself),
]


def as_async(function):
    async def run():
        await asyncio.sleep(0)
        return function()

    run.__name__ = function.__name__
    return run


def with_awaitable(function):
    """A plain function that returns an awaitable, which then raises."""

    def run():
        return as_async(function)()

    run.__name__ = function.__name__
    return run


def in_a_child_task(function):
    async def run():
        return await asyncio.gather(as_async(function)(), asyncio.sleep(0))

    run.__name__ = function.__name__
    return run


def run_in_box(*functions, **options) -> list[ToolResult]:
    box = ToolBox(functions)
    calls = [ToolCall(i, name, {}, "") for i, name in enumerate(box.names)]
    start = time.monotonic()
    results = box.run(calls, lambda request: Decision(True), **options)
    assert time.monotonic() - start < 25, "a call that is waited for takes 30"
    return results


@pytest.mark.parametrize("kind", [lambda function: function, as_async, with_awaitable, in_a_child_task],
                         ids=["sync", "async", "awaitable", "child task"])  # fmt: skip
@pytest.mark.parametrize("function", SYNC, ids=lambda function: function.__name__)
def test_every_exception_is_an_error_result_at_once(function, kind, capfd):
    (result,) = run_in_box(kind(function))
    assert result.is_error
    assert result.text
    assert result.seconds < 25
    assert "Traceback" not in capfd.readouterr().err


def test_the_model_is_told_what_was_raised():
    texts = {function: run_in_box(function)[0].text for function in SYNC}
    assert texts[exits] == "SystemExit: 2"
    assert texts[exits_with_a_text] == "SystemExit: no such file"
    assert texts[finds_nothing] == "StopIteration"
    assert texts[is_interrupted] == "KeyboardInterrupt"
    assert texts[is_cancelled_inside] == "CancelledError"
    assert texts[is_mute] == "MuteError"
    assert texts[exits_when_described] == "ExitingError"
    assert texts[exits_mutely] == "MuteExit"


@tool
async def answers() -> str:
    await asyncio.sleep(0.1)
    return "well"


def test_the_calls_beside_it_go_on():
    for broken in (exits, as_async(exits), in_a_child_task(is_interrupted)):
        box = ToolBox([answers, broken])
        calls = [ToolCall(0, broken.__name__, {}, ""), ToolCall(1, "answers", {}, "")]
        first, second = box.run(calls, lambda request: Decision(True))
        assert (first.is_error, second.text) == (True, "well")


def test_a_direct_call_raises_nothing_either():
    for function in SYNC:
        assert asyncio.run(FunctionTool(function, None, 3).call({})).is_error
        assert asyncio.run(FunctionTool(as_async(function), None, 3).call({})).is_error


def refuse(value: object) -> object:
    raise KeyboardInterrupt


class Checked(pydantic.BaseModel):
    value: int

    _check = pydantic.field_validator("value", mode="before")(refuse)


def test_checks_of_arguments_may_raise_anything():
    def takes(item: Checked) -> None:
        """Takes it."""

    output = asyncio.run(tool(takes).call({"item": {"value": 1}}))
    assert output == ToolOutput("KeyboardInterrupt", is_error=True)


def test_a_tool_of_another_kind_that_raises():
    class Other(Tool):
        async def call(self, arguments):
            raise MuteExit

    class Silent(Tool):
        async def call(self, arguments):
            return None

    schema = {"type": "object"}
    first, second = run_in_box(Other("other", "", schema), Silent("silent", "", schema))
    assert first.is_error
    assert second.is_error


def test_cancelling_still_says_so():
    async def sleeps() -> None:
        await asyncio.sleep(30)

    start = time.monotonic()
    (result,) = run_in_box(sleeps, is_cancelled=lambda: time.monotonic() - start > 0.2)
    assert result.text == "Cancelled by the user."


def test_the_time_limit_of_an_async_tool_that_hides_cancelling():
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise SystemExit(1) from None
        return ""

    output = asyncio.run(FunctionTool(stubborn, None, 0.1).call({}))
    assert output == ToolOutput("stubborn did not finish within 0.1 seconds.", is_error=True)


@pytest.mark.parametrize("text", ["caf\udce9", "\ud83d", "a\udc00b", json.loads('"\\ud83d x"')])
def test_half_surrogates_in_a_result_become_replacement_characters(text):
    def lists_files() -> list[str]:
        return [text]

    def names_one() -> str:
        return text

    def fails() -> str:
        raise FileNotFoundError(text)

    for result in run_in_box(lists_files, names_one, fails):
        result.text.encode()
        assert "\ufffd" in result.text


def test_bytes_are_text_or_named():
    def reads(size: int = 0) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + bytes(12_000)

    def reads_text() -> bytes:
        return "caf\xe9".encode()

    assert run_in_box(reads)[0].text == "[image/png, 12 KB]"
    assert run_in_box(reads_text)[0].text == "caf\xe9"
    assert run_in_box(returns_bytes)[0].text == "[application/octet-stream, 2 bytes]"

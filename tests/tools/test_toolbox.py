"""The tool box: names, running calls side by side, approval, cancelling."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import pytest

from mlx_qwen3.events import ToolCall, ToolResult
from mlx_qwen3.tools import Decision, Tool, ToolBox, ToolError, ToolOutput, tool


@dataclass
class Fake(Tool):
    """A tool of a server."""

    async def call(self, arguments):
        return ToolOutput(f"{self.key} {arguments}")


def fake(name: str, server: str) -> Fake:
    return Fake(name, f"{name} of {server}", {"type": "object", "properties": {}}, server)


class Source:
    def __init__(self, *tools: Tool):
        self.tools = tools


def calls(*named: tuple[str, dict]) -> list[ToolCall]:
    return [ToolCall(i, name, arguments, "") for i, (name, arguments) in enumerate(named)]


def yes(request) -> Decision:
    return Decision(True)


@tool
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"


@tool
def block(seconds: float) -> str:
    time.sleep(seconds)
    return "blocked"


def test_definitions_names_and_schemas():
    def plain(a: int) -> int:
        """Plain functions will do."""
        return a

    box = ToolBox([wait, plain])
    assert box.names == {"wait", "plain"}
    assert [entry["function"]["name"] for entry in box.definitions()] == ["wait", "plain"]
    assert box.schemas["plain"]["properties"] == {"a": {"type": "integer"}}


def test_equal_names_of_servers_are_told_apart_and_stay():
    source = Source(fake("read", "disk"), fake("read", "web"), fake("find/it", "web"))
    box = ToolBox([wait], [source])
    assert list(box.tools) == ["wait", "disk_read", "web_read", "find_it"]
    assert box.run(calls(("web_read", {})), yes)[0].text == "web.read {}"
    source.tools = (fake("wait", "web"), fake("read", "web"))
    assert list(box.tools) == ["wait", "web_wait", "web_read"]
    source.tools = (fake("a b", "x y"), fake("a_b", "x y"))
    assert list(box.tools) == ["wait", "x_y_a_b", "x_y_a_b_2"]


def test_two_functions_of_one_name_are_refused():
    with pytest.raises(ToolError, match="two tools have the name wait"):
        ToolBox([wait, wait])


def test_calls_run_side_by_side_and_results_keep_their_order():
    """Each call ends after the next one: one by one they would never end."""
    is_over = [threading.Event() for _ in range(4)]
    order = []

    def end(number: int) -> str:
        order.append(number)
        is_over[number].set()
        return f"call {number}"

    @tool
    async def waits(number: int) -> str:
        while not is_over[number + 1].is_set():
            await asyncio.sleep(0.001)
        return end(number)

    @tool
    def blocks(number: int) -> str:
        assert is_over[number + 1].wait(60)
        return end(number)

    threading.Timer(0.05, is_over[3].set).start()
    begin = time.monotonic()
    results = ToolBox([waits, blocks]).run(
        calls(("waits", {"number": 0}), ("blocks", {"number": 1}), ("waits", {"number": 2})), yes
    )
    assert [(result.index, result.text) for result in results] == [(i, f"call {i}") for i in range(3)]
    assert order == [2, 1, 0]
    assert 0 < results[0].seconds <= time.monotonic() - begin


def test_what_cannot_run_gives_results_that_say_why():
    box = ToolBox([wait])
    unreadable = ToolCall(0, "wait", None, "{", "The tool call is not valid JSON.")
    results = box.run([unreadable, ToolCall(1, "gone", {}, "")], yes)
    assert results == [
        ToolResult(0, "wait", "The tool call is not valid JSON.", True, results[0].seconds),
        ToolResult(1, "gone", 'There is no tool "gone".', True, results[1].seconds),
    ]


def test_a_denied_call_does_not_run_and_the_others_do():
    def no_waiting(request):
        assert request.tool.name in ("wait", "block")
        return Decision(request.tool.name != "wait", "The user did not allow this tool call.")

    results = ToolBox([wait, block]).run(
        calls(("wait", {"seconds": 9}), ("block", {"seconds": 0})), no_waiting
    )
    assert [(result.text, result.is_error) for result in results] == [
        ("The user did not allow this tool call.", True),
        ("blocked", False),
    ]


def test_approval_may_be_asynchronous():
    async def slowly(request):
        await asyncio.sleep(0)
        return Decision(True)

    async def main():
        return await ToolBox([wait]).arun(calls(("wait", {"seconds": 0})), slowly)

    assert asyncio.run(main())[0].text == "waited"


def test_cancelling_stops_what_runs_and_keeps_what_is_done():
    cancelled = threading.Event()
    threading.Timer(0.15, cancelled.set).start()
    begin = time.monotonic()
    results = ToolBox([wait, block]).run(
        calls(("wait", {"seconds": 30}), ("block", {"seconds": 30}), ("wait", {"seconds": 0})),
        yes,
        is_cancelled=cancelled.is_set,
    )
    assert time.monotonic() - begin < 20
    assert [result.text for result in results] == [
        "Cancelled by the user.",
        "Cancelled by the user.",
        "waited",
    ]


def test_cancelled_before_it_began():
    asked = []
    results = ToolBox([wait]).run(calls(("wait", {"seconds": 0})), asked.append, is_cancelled=lambda: True)
    assert results[0].is_error
    assert not asked


def test_results_are_cut():
    @tool
    def flood() -> str:
        return "x" * 1_000_000

    (result,) = ToolBox([flood], limit=100).run(calls(("flood", {})), yes)
    assert result.text == "x" * 100 + "\n[cut here: 999,900 more characters]"


def test_an_error_of_the_program_is_not_hidden():
    def broken(request):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError):
        ToolBox([wait]).run(calls(("wait", {"seconds": 0})), broken)


@pytest.mark.parametrize(
    "options", [{"tools": 5}, {"sources": 5}, {"limit": "many"}, {"limit": -1}, {"tools": [5]}]
)
def test_wrong_arguments_are_one_clear_line(options):
    with pytest.raises(ToolError) as caught:
        ToolBox(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [None, "", {}])
def test_empty_arguments_are_no_arguments(arguments):
    @tool
    def now(zone: str = "UTC") -> str:
        return zone

    asked = []

    def approve(request) -> Decision:
        asked.append(request.arguments)
        return Decision(True)

    (result,) = ToolBox([now]).run([ToolCall(0, "now", arguments, "")], approve)
    assert (result.text, result.is_error, asked) == ("UTC", False, [{}])
    assert asyncio.run(now.call(arguments)) == ToolOutput("UTC")

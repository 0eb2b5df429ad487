"""Tools as a person meets them: asked for, approved, run, and their result in the answer."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from e2e.terminal import Terminal
from e2e.test_chat import DONE, chat

SERVER = Path(__file__).parent.parent / "mcp_servers" / "friendly.py"


def test_a_tool_is_asked_about_run_and_used(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--tools", "--no-think", "--temperature", "0") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("what time is it in Tokyo?")
        screen = terminal.wait("Allow get_time", since=before)
        assert "Get the current time" in screen[before:], "a new tool is shown in full"
        terminal.wait("[y/n]", since=before)
        terminal.type("maybe")
        terminal.type("y")
        screen = terminal.wait(DONE, since=before)[before:]
        result = next(line for line in screen.splitlines() if line.startswith("← "))
        clock = result.split()[2]
        assert clock in screen.split(result)[1], "the answer holds the time the tool gave"
        assert clock[:2].isdigit()


def test_a_denied_tool_is_not_run(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--tools", "--no-think", "--temperature", "0") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("what time is it in Tokyo?")
        terminal.wait("[y/n]", since=before)
        terminal.type("n not now")
        screen = terminal.wait(DONE, since=before)[before:]
        assert "They say: not now" in screen


def test_what_is_always_allowed_is_not_asked_again(tmp_path: Path) -> None:
    for always in (True, False):
        with Terminal(tmp_path, "--tools", "--no-think", "--temperature", "0") as terminal:
            terminal.wait("/help for help")
            before = terminal.type("what time is it in Tokyo?")
            if always:
                terminal.wait("[y/n]", since=before)
                terminal.type("t")
            screen = terminal.wait(DONE, since=before)[before:]
            assert ("Allow get_time" in screen) is always
            assert "← " in screen
            before = terminal.type("/tools")
            terminal.wait("always allowed", since=before)


def test_a_script_needs_permission_by_name() -> None:
    question = ("--tools", "--no-think", "--temperature", "0", "-p", "what time is it in Tokyo?")
    denied = chat(*question)
    assert denied.returncode == 0
    assert "get_time was denied" in denied.stderr
    allowed = chat(*question, "--allow", "get_time", "--json")
    events = [json.loads(line) for line in allowed.stdout.splitlines()]
    result = next(event for event in events if event["event"] == "ToolResult")
    assert not result["is_error"]
    assert result["text"].startswith(str(datetime.now(UTC).year))
    assert allowed.stderr == ""


def test_tools_can_be_switched_while_chatting(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think") as terminal:
        terminal.wait("/help for help")
        for typed, answer in [
            ("/tools", "no tools are offered"),
            ("/tools on", "calculator"),
            ("/tools off", "no tools are offered"),
            ("/tools maybe", "error: /tools takes"),
            ("/mcp", "error: no MCP servers are configured"),
        ]:
            before = terminal.type(typed)
            terminal.wait(answer, since=before)


def test_a_broken_mcp_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text('{"mcpServers": {')
    result = chat("--mcp", str(tmp_path / "mcp.json"), "-p", "hi")
    assert result.returncode == 1
    assert "not valid JSON" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_mcp_server_is_listed_and_closed(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    config = {"mcpServers": {"friend": {"command": sys.executable, "args": [str(SERVER)]}}}
    (tmp_path / "mcp.json").write_text(json.dumps(config))
    with Terminal(tmp_path, "--mcp", str(tmp_path / "mcp.json")) as terminal:
        terminal.wait("MCP server friend: ready")
        terminal.wait("/help for help")
        before = terminal.type("/mcp")
        terminal.wait("friend", since=before)
        before = terminal.type("/mcp restart nobody")
        terminal.wait("error: there is no MCP server", since=before)
        before = terminal.type("/mcp dance")
        terminal.wait("error: /mcp takes nothing", since=before)
        assert terminal.leave() == 0

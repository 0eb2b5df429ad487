"""Tools end to end: called by the model, approved, run, and their result in the answer."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from e2e.terminal import Terminal
from e2e.test_chat import DONE, chat

SERVERS = Path(__file__).parent.parent / "mcp_servers"


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


def test_ctrl_c_in_place_of_an_answer_stops_the_turn(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--tools", "--no-think", "--temperature", "0") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("what time is it in Tokyo?")
        terminal.wait("[y/n]", since=before)
        terminal.press("\x03")
        screen = terminal.wait("tokens/s", since=before)[before:]
        assert "← Cancelled by the user." in screen
        assert "stopped · " in screen


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
            terminal.say("/tools", "always allowed")


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
            terminal.say(typed, answer)


def test_a_broken_mcp_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text('{"mcpServers": {')
    result = chat("--mcp", str(tmp_path / "mcp.json"), "-p", "hi")
    assert result.returncode == 1
    assert "not valid JSON" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def write_servers(file: Path, **servers: list[str]) -> Path:
    """An mcpServers file: name -> a program of tests/mcp_servers and its arguments."""
    folder = "${SERVERS:-" + str(SERVERS) + "}"
    entries = {
        name: {"command": sys.executable, "args": [f"{folder}/{program}", *arguments]}
        for name, (program, *arguments) in servers.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"mcpServers": entries}))
    return file


def test_servers_of_the_configuration_folder(tmp_path: Path) -> None:
    """Servers connect without a flag; /mcp lists what they offer, and changes are printed."""
    pytest.importorskip("mcp")
    for folder in (".config", "Library/Application Support"):  # of Linux and macOS
        file = tmp_path / folder / "mlx-qwen3" / "mcp.json"
        write_servers(file, friend=["friendly.py"], other=["hostile.py", "good"], dead=["hostile.py", "dead"])
    with Terminal(tmp_path) as terminal:
        terminal.wait("/help for help")
        screen = terminal.wait("MCP server friend: ready, 7 tools")
        assert "MCP server other: ready, 1 tools" in screen
        assert "MCP server dead: failed: it ended; its log is" in screen
        assert "no licence found" in next(tmp_path.rglob("dead.log")).read_text()
        for typed, answer in [
            ("/mcp", "failed, 0 tools"),
            ("/mcp prompts", "poem about  A poem"),
            ("/mcp resources", "memo://notes"),
            ("/mcp read friend memo://notes", "go before your next message"),
            ("/mcp restart nobody", "error: there is no MCP server"),
            ("/mcp restart other", "other: ready"),
            ("/mcp dance", "error: /mcp takes nothing"),
        ]:
            terminal.say(typed, answer)
        terminal.say("/mcp prompt friend poem 'about=the sea'", "> Write a poem about the sea.")
        terminal.press("\x15")
        end_server(terminal, "hostile.py")
        deadline = time.monotonic() + 30  # the chat says it before its next prompt, once it has noticed
        while "MCP server other failed: it ended" not in terminal.text():
            assert time.monotonic() < deadline
            terminal.say("/budget 0", "answers come without thinking")
        assert terminal.leave() == 0


def end_server(terminal: Terminal, program: str) -> None:
    """Kill a server process of the chat."""
    processes = psutil.Process(terminal.pid).children(recursive=True)
    for process in processes:
        if any(part.endswith(program) for part in process.cmdline()):
            process.kill()


def test_a_script_is_told_of_servers_that_fail(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    file = write_servers(tmp_path / "mcp.json", dead=["hostile.py", "dead"])
    result = chat("--mcp", str(file), "--no-think", "--seed", "1", "-p", "hello")
    assert result.returncode == 0
    assert result.stdout.strip()
    assert result.stderr.startswith("MCP server dead failed: it ended; its log is")
    assert len(result.stderr.splitlines()) == 1


def test_a_key_pressed_before_the_question_does_not_answer_it(tmp_path: Path) -> None:
    """It is kept for the next prompt, like other text that is typed while a turn runs."""
    with Terminal(tmp_path, "--tools", "--no-think", "--temperature", "0") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("what time is it in Tokyo?")
        terminal.press("t\rt\r")
        terminal.wait("[y/n]", since=before)
        terminal.settle(0.5)
        assert "← " not in terminal.text()[before:]
        assert not list(tmp_path.rglob("approvals.json"))
        terminal.type("n too early")
        screen = terminal.wait(DONE, since=before)[before:]
        assert "They say: too early" in screen
        terminal.wait("▌ t", since=before)

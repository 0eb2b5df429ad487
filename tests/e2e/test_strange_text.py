"""Strange text in every way to the terminal: nothing of it arrives that could control one or hide in it."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path

import pexpect
from e2e.strange_text_program import RAW, places, strange_events
from e2e.terminal import Terminal

from mlx_qwen3.cli import output
from mlx_qwen3.engine.conversation import Conversation

ROOT = Path(__file__).parents[2]
# They return text or take text of our own only.
NO_WAY_OUT = {"printable", "printable_characters", "program", "error_text", "write_codes"}


def raw_parts(written: str) -> list[str]:
    return [part for part in RAW if part in written]


def test_every_way_to_the_terminal_is_among_the_places() -> None:
    tree = ast.parse(Path(output.__file__).read_text(encoding="utf-8"))
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    assert public - NO_WAY_OUT <= set(places())
    assert len(list(strange_events())) > 8


def test_no_place_writes_it_raw() -> None:
    child = pexpect.spawn(
        sys.executable,
        [str(Path(__file__).with_name("strange_text_program.py"))],
        env={
            **os.environ,
            "TERM": "xterm-256color",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        },
        dimensions=(50, 100),
        timeout=60,
    )
    child.expect("BEGIN ask")
    child.send("\r")
    before = child.before
    child.expect(pexpect.EOF)
    written = (before + b"BEGIN ask" + child.before).decode()
    parts = re.split(r"BEGIN ([\w ]+)\r\n", written)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert set(found) == set(places())
    for name, text in found.items():
        assert f"END {name}" in text, text
        assert "a " in text
        assert raw_parts(text) == [], name


def test_a_chat_about_strange_things_shows_none_of_it(tmp_path: Path) -> None:
    strange = "a " + " b ".join(RAW)
    talk = Conversation(
        [
            {"role": "system", "content": strange},
            {"role": "user", "content": strange},
            {"role": "assistant", "content": strange, "reasoning_content": strange},
        ],
        given_title=strange,
    )
    environment = {"XDG_DATA_HOME": str(tmp_path / "data")}
    talk.save(tmp_path / "data" / "mlx-qwen3" / "conversations" / "old.json", {"model": strange})
    config = {"mcpServers": {strange: {"command": strange, "args": [strange]}}}
    (tmp_path / "mcp.json").write_text(json.dumps(config))
    (tmp_path / "note.txt").write_text(strange)
    arguments = ("--resume", "--mcp", str(tmp_path / "mcp.json"), "--allow", strange.replace("\x00", ""))
    with Terminal(tmp_path, *arguments, environment=environment) as terminal:
        terminal.wait("/help for help", seconds=60)
        terminal.say("/sessions", "old")
        terminal.say("/mcp", "fail")
        terminal.say(f"/file {tmp_path / 'note.txt'}", "note.txt")
        terminal.say("/load old", "1 turn")
        terminal.type("/thoughts")
        terminal.type("/edit")
        terminal.settle()
        written = terminal.raw.decode(errors="replace")
    assert raw_parts(written) == []

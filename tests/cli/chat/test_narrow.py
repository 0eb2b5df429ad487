"""Lists of the chat on terminals of any width: nothing is cut off, and nothing is wider than the terminal."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from mlx_qwen3.cli.chat.commands.registry import COMMANDS, KEYS, run_command
from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.engine.conversation import Conversation

WIDTHS = (20, 40, 61, 80, 200)


class Chat(ChatState):
    """A chat of which only the console, the store and the name are there."""

    def __init__(self, width: int, store: Any = None, name: str = ""):
        self.written = io.StringIO()
        missing = dict.fromkeys(("engine", "session", "model", "printer", "tools", "show_turn"))
        console = Console(file=self.written, width=width)
        super().__init__(**missing, console=console, store=store, name=name)  # type: ignore[arg-type]

    def printed(self, command: str) -> str:
        run_command(self, command)
        shown = self.written.getvalue()
        assert max(cell_len(line) for line in shown.splitlines()) <= self.console.width
        assert "…" not in shown
        return " ".join(shown.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_help_is_whole(width: int) -> None:
    shown = Chat(width).printed("/help").replace(" ", "")
    rows = [(name, command.usage, command.summary) for name, command in COMMANDS.items()] + [*KEYS.items()]
    assert [text for row in rows for text in row if text.replace(" ", "") not in shown] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_sessions_have_age_counts_and_titles(width: int, tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    question, answer = ({"role": role, "content": "Plans for 北京"} for role in ("user", "assistant"))
    ages = {"trip": (3, 3600 * 5), "20261126-010203": (1, 86400 * 3), "old": (2, 86400 * 40), "now": (1, 1)}
    for name, (turns, seconds) in ages.items():
        settings = {} if name == "old" else {"tokens": 1234}
        Conversation([question, answer] * turns).save(store.path(name), settings)
        os.utime(store.path(name), (time.time() - seconds,) * 2)
    shown = Chat(width, store, "trip").printed("/sessions").replace(" · ", " ")
    assert "1 just now 1 turn 1,234 tokens now Plans for 北京" in shown
    assert "2 5 h ago 3 turns 1,234 tokens trip Plans for 北京 (this one)" in shown
    assert "3 3 days ago 1 turn 1,234 tokens Plans for 北京" in shown
    year = time.localtime(time.time() - 86400 * 40).tm_year
    assert f"4 {year}-" in shown
    assert "2 turns old Plans for 北京" in shown
    assert shown.count("(this one)") == 1


def test_a_saved_count_of_tokens_may_be_anything(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    for name, tokens in [("a", "many"), ("b", -1), ("c", True), ("d", 2**70)]:
        Conversation([{"role": "user", "content": "hi"}]).save(store.path(name), {"tokens": tokens})
    assert {saved.tokens for saved in store.list()} == {0, -1, 2**70}
    assert "hi" in Chat(60, store).printed("/sessions")

"""Parts of the chat, without a terminal: drawing, waiting, preferences and saved conversations."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from mlx_qwen3.cli.chat import preferences
from mlx_qwen3.cli.chat.commands.conversation import attach
from mlx_qwen3.cli.chat.saved_conversations import MAX_AUTOMATIC, CacheFolder, ConversationStore
from mlx_qwen3.cli.chat.terminal import waiting
from mlx_qwen3.cli.chat.terminal.line_editor import HiddenCharacters
from mlx_qwen3.cli.chat.terminal.markdown import last_code_block
from mlx_qwen3.cli.chat.terminal.pasted import is_complete, without_quotes
from mlx_qwen3.cli.chat.terminal.printers import TerminalPrinter
from mlx_qwen3.cli.chat.terminal.region import BEGIN, LiveRegion
from mlx_qwen3.cli.console import SafeConsole
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import CacheError, MessageError
from mlx_qwen3.events import AnswerDelta, PromptProgress, ThinkingDelta
from mlx_qwen3.files import replacing


def region() -> tuple[LiveRegion, io.StringIO]:
    written = io.StringIO()
    return LiveRegion(Console(file=written, width=40, height=10, force_terminal=True)), written


def test_nothing_is_written_where_nothing_changed() -> None:
    live, written = region()
    assert live.draw(Text("one"))
    length = len(written.getvalue())
    assert not live.draw(Text("one"))
    assert len(written.getvalue()) == length
    assert live.draw(Text("one"), above=Text("a finished block"))
    assert live.draw(Text("two"))
    assert written.getvalue().count(BEGIN) == 3


def test_a_change_is_one_write_over_the_lines_before() -> None:
    live, written = region()
    live.draw(Text("one\ntwo"))
    live.draw(Text("three"))
    assert "\x1b[2A" in written.getvalue().split(BEGIN)[-1], "two lines up"


def test_what_is_drawn_is_never_taller_than_the_screen() -> None:
    live, written = region()
    live.draw(Text("\n".join(str(number) for number in range(50))))
    assert written.getvalue().count("\n") == 9
    assert "49" in written.getvalue()


def test_waiting_shows_how_far_a_long_prompt_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now)
    indicator = waiting.WaitIndicator()
    assert indicator.render() is None, "a short wait needs no spinner"
    now = 102.0
    assert "2 s" in str(indicator.render())
    indicator.update(PromptProgress(1000, 4000, 0))
    assert "reading 1,000 of 4,000 tokens · 6 s left" in str(indicator.render())
    assert str(indicator.render()).count("━") == 5


@pytest.mark.parametrize(
    ("text", "complete", "sent"),
    [
        ("hi", True, "hi"),
        ('"""one', False, '"""one'),
        ('"""', False, '"""'),
        ('"""one\ntwo"""', True, "one\ntwo"),
        ('"""\none\n"""', True, "one"),
        ('say """this"""', True, 'say """this"""'),
    ],
)
def test_three_quotes_hold_several_lines(text: str, complete: bool, sent: str) -> None:
    assert is_complete(text) is complete
    assert without_quotes(text) == sent


def test_the_last_block_of_code() -> None:
    assert last_code_block("a\n```py\none\n```\nb\n```\ntwo\n```\n") == "two\n"
    with pytest.raises(MessageError, match="no code block"):
        last_code_block("`word`")


def test_settings_are_remembered_but_for_seeds_and_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences, "data_folder", lambda: tmp_path)
    assert preferences.load_preferences() == {}
    preferences.remember(model="4b", thinking=False, thinking_budget=None, sampling={"top_k": 5, "seed": 1})
    preferences.remember(model="8b")
    assert preferences.load_preferences() == {"model": "8b", "thinking": False, "sampling": {"top_k": 5}}
    preferences.remember(sampling=None)
    assert "sampling" not in preferences.load_preferences()
    (tmp_path / "settings.json").write_text(json.dumps({"model": 5, "thinking": True, "colour": "red"}))
    assert preferences.load_preferences() == {"thinking": True}
    (tmp_path / "settings.json").write_text("{")
    assert preferences.load_preferences() == {}


def save(store: ConversationStore, name: str, message: str) -> None:
    Conversation([{"role": "user", "content": message}]).save(store.path(name), {})


def test_conversations_are_found_by_name_number_and_title(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    with pytest.raises(MessageError, match="no conversation is saved"):
        store.latest()
    save(store, "20261126-010203", "Plans for a garden")
    save(store, "work", "Numbers of the year")
    names = [entry.name for entry in store.list()]
    assert store.find("work") == store.path("work")
    assert store.find("plans for") == store.path("20261126-010203")
    assert store.find("2") == store.path(names[1])
    assert store.latest() == store.path(names[0])
    assert {entry.label for entry in store.list()} == {"Plans for a garden", "work · Numbers of the year"}
    with pytest.raises(MessageError, match="nothing"):
        store.find("nothing")


def test_conversations_that_saved_themselves_delete_oldest(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    first = store.new_name()
    save(store, first, "hi")
    assert store.new_name() != first
    for number in range(MAX_AUTOMATIC + 3):
        save(store, f"20200101-{number:06}", "hi")
    save(store, "kept by name", "hi")
    store.delete_oldest()
    assert len(store.list()) == MAX_AUTOMATIC + 1
    store.delete_automatic("kept by name")
    store.delete_automatic(store.list()[-1].name)
    assert store.path("kept by name").exists()
    assert len(store.list()) == MAX_AUTOMATIC


def test_the_least_recently_used_caches_are_evicted(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, limit=250)
    for age, name in enumerate("abc"):
        folder.path(name).write_bytes(b"x" * 100)
        os.utime(folder.path(name), (1e9 - age, 1e9 - age))  # c is the oldest
    assert folder.find("c") == folder.path("c")
    folder.evict()
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["a", "c"]
    assert folder.find("b") is None
    with pytest.raises(CacheError, match="cannot be a name"):
        folder.path("../x")


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("# A plan\n\nfor the garden", "A plan"),
        ("note.txt:\n\nline\nline\n\nwhat is this?", "note.txt: what is this?"),
        ("one two three four five six seven eight nine", "one two three four five six seven eight ..."),
        ("", ""),
    ],
)
def test_titles(message: str, title: str, tmp_path: Path) -> None:
    conversation = Conversation([{"role": "user", "content": message}])
    assert conversation.title == title
    conversation.given_title = "Mine"
    conversation.save(tmp_path / "c.json", {})
    assert Conversation.load(tmp_path / "c.json")[0].title == "Mine"


@pytest.mark.parametrize("name", ["notes (1)", "(2)", "it's, done!", "北京"])
def test_a_conversation_of_any_safe_name_is_found(tmp_path: Path, name: str) -> None:
    store = ConversationStore(tmp_path)
    save(store, name, "hi")
    assert store.latest() == store.find(name) == tmp_path / f"{name}.json"


def test_a_file_that_is_no_conversation_is_left_out(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    save(store, "kept", "hi")
    (tmp_path / "deep.json").write_text("[" * 5000 + "]" * 5000)
    (tmp_path / "a\u202eb.json").write_text((tmp_path / "kept.json").read_text())
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    assert [entry.name for entry in store.list()] == ["kept"]
    store.delete_oldest()


def test_settings_of_any_content_are_read_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences, "data_folder", lambda: tmp_path)
    (tmp_path / "settings.json").write_text("[" * 5000 + "]" * 5000)
    assert preferences.load_preferences() == {}
    (tmp_path / "settings.json").unlink()
    os.mkfifo(tmp_path / "settings.json")
    assert preferences.load_preferences() == {}


def test_what_a_killed_save_left_is_deleted_but_not_what_is_being_written(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, limit=1000)
    (tmp_path / ".old.safetensors.abc.part").write_bytes(b"x" * 100)
    with replacing(folder.path("new")) as file:
        file.write(b"x")
        folder.evict()
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_regular_files_are_attached(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(MessageError, match="cannot be read"):
        attach(None, str(path))


def test_the_editor_shows_characters_that_hide() -> None:
    text = "a\x1b[2J\u202eb\u200b北"
    shown = HiddenCharacters().apply_transformation(SimpleNamespace(fragments=[("", text)]))
    assert shown.fragments == [("", "a\ufffd[2J\ufffdb\ufffd北")]
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    parts = [("", char) for char in family]
    shown = HiddenCharacters().apply_transformation(SimpleNamespace(fragments=parts))
    assert shown.fragments == parts


def test_a_terminal_without_styles_tells_thinking_from_the_answer() -> None:
    written = io.StringIO()
    printer = TerminalPrinter(SafeConsole(file=written, force_terminal=False), with_figures=False)
    for event in (ThinkingDelta("one and "), ThinkingDelta("one"), AnswerDelta("two")):
        printer.show(event)
    assert written.getvalue() == "∴ thinking\none and one\n\ntwo"

"""What was said, on disk and back; and the folder where the chat keeps it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from killed import run_until_killed

from mlx_qwen3.cli.chat.saved_conversations import MAX_AUTOMATIC, ConversationStore
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import MessageError
from mlx_qwen3.files import write_atomically


def talk() -> Conversation:
    return Conversation(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one two three four five six seven eight nine"},
            {"role": "assistant", "content": "ten 👩‍👩‍👧", "reasoning_content": "counting"},
            {"role": "user", "content": "and?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
            },
            {"role": "tool", "content": "11"},
            {"role": "assistant", "content": "eleven"},
        ]
    )


def test_saved_is_loaded(tmp_path: Path) -> None:
    talk().save(tmp_path / "a.json", {"thinking": True})
    loaded, settings = Conversation.load(tmp_path / "a.json")
    assert loaded == talk()
    assert settings == {"thinking": True}
    assert (tmp_path / "a.json").stat().st_mode & 0o077 == 0


def test_taking_back_a_turn_takes_its_tool_calls_too() -> None:
    conversation = talk()
    assert conversation.take_back() == "and?"
    assert len(conversation.messages) == 3
    conversation.take_back()
    assert [m["role"] for m in conversation.messages] == ["system"]
    with pytest.raises(MessageError, match="nothing was said"):
        conversation.take_back()


def test_titles_name_the_first_words() -> None:
    assert talk().title == "one two three four five six seven eight ..."
    assert Conversation().title == ""


def test_a_branch_goes_its_own_way() -> None:
    trunk = talk()
    branch = trunk.branch()
    branch.messages[1]["content"] = "changed"
    branch.take_back()
    assert trunk == talk()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"format": "mlx_qwen3 conversation", "version": 99}', "another version"),
        (
            '{"format": "mlx_qwen3 conversation", "version": 1, "title": "", "settings": {}, '
            '"messages": [{"role": "king"}]}',
            "unknown role",
        ),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MessageError, match=said):
        Conversation.load(path)


def test_a_save_that_fails_says_so_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MessageError, match="cannot be written"):
        talk().save(tmp_path / "file" / "a.json", {})
    with pytest.raises(OSError):  # a folder cannot be replaced by a file
        write_atomically(tmp_path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_killed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    code = (
        "import sys, pathlib, mlx_qwen3.files as f\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "f.write_atomically(path, 'x' * 1000)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for c in 'ab': f.write_atomically(path, c * 5_000_000)\n"
    )
    for wait in (0.0, 0.01, 0.03):
        run_until_killed(code, path, wait)
        assert len(set(path.read_text())) == 1, "two contents in one file"


def test_the_store_lists_latest_first_and_skips_strangers(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    for age, name in enumerate(["new one", "old one"]):
        talk().save(store.path(name), {})
        os.utime(store.path(name), (1e9 - age, 1e9 - age))
    (tmp_path / "stranger.json").write_text(json.dumps({"no": "title"}))
    assert [saved.name for saved in store.list()] == ["new one", "old one"]
    assert store.find("old one") == store.path("old one")
    with pytest.raises(MessageError, match="the latest: new one, old one"):
        store.find("older one")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a\nb"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(MessageError, match="cannot be a name"):
        ConversationStore(tmp_path).path(name)


def test_only_conversations_that_saved_themselves_make_room(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    for number in range(MAX_AUTOMATIC + 3):
        talk().save(store.path(f"20260101-{number:06}"), {})
    talk().save(store.path("mine"), {})
    store.delete_oldest()
    assert len(store.list()) == MAX_AUTOMATIC + 1
    assert store.path("mine").exists()

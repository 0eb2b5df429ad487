"""Two chats, one folder: neither loses what the other saved."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mlx_qwen3.cli.chat import preferences
from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import MessageError


def talk(*texts: str) -> Conversation:
    return Conversation([{"role": "user", "content": text} for text in texts])


def save(store: ConversationStore, name: str, conversation: Conversation) -> str:
    return store.save(name, lambda path: conversation.save(path, {}))


def said(store: ConversationStore, name: str) -> list[str]:
    return [message["content"] for message in Conversation.load(store.path(name))[0].messages]


def test_two_chats_that_continue_one_conversation_lose_nothing(tmp_path: Path) -> None:
    first = ConversationStore(tmp_path)
    name = save(first, "", talk("a"))
    one, other = ConversationStore(tmp_path), ConversationStore(tmp_path)
    for store in (one, other):
        store.mark_read(store.path(name))
    assert save(one, name, talk("a", "one")) == name
    moved = save(other, name, talk("a", "other"))
    assert moved != name
    assert (said(one, name), said(other, moved)) == (["a", "one"], ["a", "other"])
    assert save(other, moved, talk("a", "other", "more")) == moved
    assert save(one, name, talk("a", "one", "more")) == name


def test_first_saves_at_the_same_moment_get_names_of_their_own(tmp_path: Path) -> None:
    names: list[str] = []
    gate = threading.Barrier(8)

    def first_save(number: int) -> None:
        gate.wait()
        names.append(save(ConversationStore(tmp_path), "", talk(f"chat {number}")))

    threads = [threading.Thread(target=first_save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = {said(ConversationStore(tmp_path), name)[0] for name in names}
    assert texts == {f"chat {number}" for number in range(8)}


def test_a_name_of_another_conversation_is_not_taken(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    store.save_as("plans", lambda path: talk("mine").save(path, {}))
    store.save_as("plans", lambda path: talk("mine", "more").save(path, {}))
    with pytest.raises(MessageError, match="there is a conversation plans already"):
        ConversationStore(tmp_path).save_as("plans", lambda path: talk("theirs").save(path, {}))
    assert said(store, "plans") == ["mine", "more"]


def test_a_conversation_that_was_deleted_meanwhile_is_saved_again(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    name = save(store, "", talk("a"))
    store.path(name).unlink()
    assert save(store, name, talk("a", "b")) == name


def test_preferences_of_two_chats_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences, "data_folder", lambda: tmp_path)
    gate = threading.Barrier(2)

    def change(**values: Any) -> None:
        for _ in range(20):
            gate.wait()
            preferences.remember(**values)

    threads = [
        threading.Thread(target=change, kwargs={"model": "14b"}),
        threading.Thread(target=change, kwargs={"thinking": False}),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert preferences.load_preferences() == {"model": "14b", "thinking": False}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"title": 5}, "title"),
        ({"settings": []}, "settings"),
        ({"settings": {"thinking": "yes"}}, "settings.thinking"),
        ({"settings": {"thinking_budget": -1}}, "settings.thinking_budget"),
        ({"settings": {"sampling": [1]}}, "settings.sampling"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
    ],
)
def test_a_conversation_with_a_value_of_the_wrong_kind_names_its_place(
    tmp_path: Path, changes: dict[str, Any], place: str
) -> None:
    path = tmp_path / "a.json"
    talk("a").save(path, {"thinking": True})
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(MessageError, match=f"is not a saved conversation: {place}: "):
        Conversation.load(path)

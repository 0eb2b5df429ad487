"""The chat's models, slash commands, servers and permissions, without a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint import FAMILY
from mlx_qwen3.cli import open_engine
from mlx_qwen3.cli.chat import first_run, main, preferences, tools
from mlx_qwen3.cli.chat.commands import conversation as conversation_commands
from mlx_qwen3.cli.chat.commands import settings
from mlx_qwen3.cli.chat.commands.mcp import mcp
from mlx_qwen3.cli.chat.commands.registry import run_command
from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
from mlx_qwen3.cli.chat.state import ChatState
from mlx_qwen3.cli.chat.tools import ChatTools
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import MessageError, ModelNotFoundError
from mlx_qwen3.events import Stats
from mlx_qwen3.tools.approval import Answer, ApprovalRequest, Choice
from mlx_qwen3.tools.builtin import calculator


class Chat:
    """A ChatState made of only the given parts, and what it printed."""

    def __init__(self, **parts: Any):
        self._written = io.StringIO()
        console = Console(file=self._written, width=200)
        known = dict.fromkeys(("engine", "session", "model", "printer", "store", "tools", "show_turn"))
        self.state = ChatState(**{**known, "console": console, **parts})

    def __str__(self) -> str:
        return self._written.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (preferences, tools):
        monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(tools, "_default_file", lambda: tmp_path / "mcp.json")
    return tmp_path


# KV caches on disk


@pytest.mark.parametrize("saves_caches", [True, False])
def test_a_kv_cache_on_disk_is_said_and_can_be_switched_off(tmp_path: Path, saves_caches: bool) -> None:
    saved: list[Path] = []
    info = SimpleNamespace(saved_nbytes=5_000_000)
    session = SimpleNamespace(cache_info=info, tokens=1000, save_cache=saved.append)
    store = ConversationStore(tmp_path / "conversations")
    store.saves_caches = saves_caches
    chat = Chat(session=session, store=store)
    chat.state.name = "trip"
    chat.state.save_cache()
    assert len(saved) == saves_caches
    said = "the KV cache is kept on disk for --resume, 5 MB; --no-save-caches prevents it\n"
    assert str(chat) == (said if saves_caches else "")


# The model


def test_a_choice_is_remembered_once_its_model_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: str, **options: Any) -> None:
        raise ModelNotFoundError(f"{model} cannot be had")

    monkeypatch.setattr(open_engine, "open_engine", fails)
    with pytest.raises(ModelNotFoundError, match=r"^32b cannot be had$"):
        main._open("32b", is_remembered=False, is_chosen=True)
    assert preferences.load_preferences() == {}
    with pytest.raises(ModelNotFoundError, match=r"32b cannot be had; .* --model names another"):
        main._open("32b", is_remembered=True, is_chosen=False)
    monkeypatch.setattr(open_engine, "open_engine", lambda model, **options: model)
    main._open("4b", is_remembered=False, is_chosen=False)
    assert preferences.load_preferences() == {}
    main._open("4b", is_remembered=False, is_chosen=True)
    assert preferences.load_preferences() == {"model": "4b"}


@pytest.mark.parametrize(
    ("typed", "chosen"), [("", "0.6b"), ("0", "demo"), ("1", "0.6b"), ("demo", "demo"), (" 4B ", "4b")]
)
def test_a_model_is_chosen_by_number_or_name(
    typed: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["9", "-1", "²", "no idea", typed])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    written = io.StringIO()
    assert first_run._ask(Console(file=written), ["demo", "0.6b", "4b"], "0.6b") == chosen
    assert written.getvalue().splitlines() == ["type a number from 0 to 2, or a name: demo, 0.6b, 4b"] * 4


@pytest.mark.parametrize(
    ("memory", "recommended"), [(64e9, "32b"), (18e9, "8b"), (5e9, "0.6b"), (0.5e9, "demo")]
)
def test_the_recommended_model_leaves_half_of_the_memory(
    memory: float, recommended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download is confirmed; no asks again."""
    monkeypatch.setattr("mlx_qwen3.backend.device.available_memory", lambda: int(memory))
    answers = iter(["", "n", "", "y"] if recommended != "demo" else [""])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    written = io.StringIO()
    chosen = first_run.choose_model(Console(file=written, width=100))
    assert chosen == recommended
    assert next(answers, None) is None
    member = FAMILY.get(chosen)
    assert member is None or member.num_bytes < memory / 2


def test_a_window_is_shown_as_such_and_holds_no_more() -> None:
    engine = SimpleNamespace(cache_config=CacheConfig(max_size=128), context=2**31)
    stats = Stats(9, 9, 0, 5, 0.1, 0.0, 10.0, 0, "stop")
    session = SimpleNamespace(tokens=417, cache_info=SimpleNamespace(nbytes=0), messages=[], last_stats=stats)
    chat = Chat(engine=engine, session=session, model="demo")
    settings.switch_model(chat.state, "")
    settings.stats(chat.state, "")
    assert "demo · window 128" in str(chat)
    assert "128 tokens, 0.0 MiB" in str(chat)
    assert "prefill" not in str(chat), "the prompt was cached"


# Commands and the conversation


@pytest.mark.parametrize(
    ("typed", "hint"), [("/foo", "/help lists them"), ("/hepl", "mean /help"), ("/stat", "mean /stats")]
)
def test_only_near_names_are_suggested(typed: str, hint: str) -> None:
    with pytest.raises(MessageError, match=f"no command {typed}; .*{hint}"):
        run_command(Chat().state, typed)


@pytest.mark.parametrize(("lines", "shown"), [(3, ""), (4, "(+2 lines)"), (5, "(+3 lines)")])
def test_a_long_question_is_cut_where_one_comes_back_to_it(lines: int, shown: str) -> None:
    asked = "\n".join(["word"] * lines)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "yes"}]
    chat = Chat(session=SimpleNamespace(conversation=Conversation(messages)))
    conversation_commands.show_latest_turn(chat.state)
    assert shown in str(chat)
    assert ("(+" in str(chat)) is bool(shown)


@pytest.mark.parametrize("is_whole", [True, False])
def test_compact_says_what_became_of_the_conversation(is_whole: bool) -> None:
    roles = ("system", "user", "assistant")
    conversation = Conversation([{"role": role, "content": "hi"} for role in roles])

    class Session:
        messages = property(lambda _: conversation.messages)

        def compact(self) -> Iterator[Any]:
            if is_whole:
                conversation.go_on_from("a summary")
            yield from ()

    chat = Chat(session=Session(), show_turn=list)
    conversation_commands.compact(chat.state, "")
    assert ("this summary replaces the 2 messages" in str(chat)) is is_whole


# Tools and servers


def test_what_was_never_allowed_cannot_be_forgotten(folder: Path) -> None:
    chat_tools = ChatTools(True, None, ())
    chat_tools.approvals.ask = lambda _: Answer(Choice.TOOL)
    chat_tools.approvals(ApprovalRequest(calculator, {}))
    chat = Chat(tools=chat_tools)
    with pytest.raises(MessageError, match="no permission for zzz; there are: calculator"):
        settings.tools(chat.state, "forget zzz")
    assert chat_tools.approvals.allowed() == ["calculator"]
    settings.tools(chat.state, "forget calculator")
    assert chat_tools.approvals.allowed() == []
    settings.tools(chat.state, "forget")


def test_allowing_what_no_tool_is_called_is_said(folder: Path) -> None:
    chat_tools = ChatTools(True, None, ("calculator", "notes.nope"))
    (line,) = chat_tools.unknown_allowed_tools()
    assert "--allow notes.nope" in line
    chat_tools.servers = SimpleNamespace(statuses=[SimpleNamespace(state="starting")])  # type: ignore[assignment]
    assert chat_tools.unknown_allowed_tools() == [], "it may be a tool of the server that is starting"


class Servers:
    """Servers of which one has a prompt and one fails."""

    def prompts(self) -> list[Any]:
        return [SimpleNamespace(server="notes", name="hello", required=("who", "when"))]

    def prompt(self, server: str, name: str, arguments: dict[str, str]) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{name} {arguments}"}]

    def restart(self, server: str) -> Any:
        problem = "it ended" if server == "dies" else ""
        return SimpleNamespace(state="failed" if problem else "ready", problem=problem, tools=2)


def test_a_prompt_names_the_arguments_it_needs() -> None:
    chat = Chat(tools=SimpleNamespace(require_servers=Servers))
    with pytest.raises(MessageError, match=r"hello needs when=\.\.\."):
        mcp(chat.state, "prompt notes hello who=me")
    mcp(chat.state, "prompt notes hello who=me when=now")
    assert chat.state.draft.startswith("hello")


def test_how_a_server_is_after_a_restart() -> None:
    chat = Chat(tools=SimpleNamespace(require_servers=Servers))
    mcp(chat.state, "restart dies")
    mcp(chat.state, "restart notes")
    assert str(chat).splitlines() == ["dies: failed: it ended", "notes: ready, 2 tools"]


def test_an_adapter_is_chosen_by_name_or_folder(tmp_path: Path) -> None:
    loaded: list[Path] = []
    folders: dict[str, Any] = {"polite": tmp_path / "polite"}
    for name in ("polite", "terse"):
        (tmp_path / name).mkdir()

    def load_adapter(folder: Path) -> str:
        loaded.append(folder)
        folders[folder.name] = folder
        engine.adapters = (*engine.adapters, folder.name)
        return folder.name

    engine = SimpleNamespace(adapters=("polite",), adapter_folders=folders, load_adapter=load_adapter)
    state: Any = SimpleNamespace(engine=engine, session=SimpleNamespace(adapter="none"), printed=[])
    state.print_line = state.printed.append
    for typed, chosen in [
        ("adapter", "none"),
        ("adapter polite", "polite"),
        (f"adapter={tmp_path / 'terse'}", "terse"),
        (f"adapter {tmp_path / 'polite'}", "polite"),
        (f"adapter {tmp_path / 'terse'}/", "terse"),
        ("adapter none", "none"),
        ("adapter other", "other"),  # which the session refuses
    ]:
        settings.set_value(state, typed)
        assert state.session.adapter == chosen
    assert loaded == [tmp_path / "terse"]
    assert state.printed[0] == "adapter is none; others: polite"
    assert state.printed[2] == "adapter is terse; others: polite, none"


# What is attached, and what was sent with it


def test_file_alone_says_that_nothing_is_attached() -> None:
    chat = Chat()
    conversation_commands.attach(chat.state, "")
    assert "no file goes before your next message" in str(chat)


def test_the_words_after_a_file_are_shown_where_one_comes_back() -> None:
    asked = "notes.txt:\n\n" + "\n".join(["line"] * 30) + "\n\nsum it up"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "yes"}]
    chat = Chat(session=SimpleNamespace(conversation=Conversation(messages)))
    conversation_commands.show_latest_turn(chat.state)
    assert "▌ notes.txt:\n▌ ... (+32 lines)\n▌ sum it up\n" in str(chat)


def test_a_folder_is_no_text_file(tmp_path: Path) -> None:
    with pytest.raises(MessageError, match="it is a folder"):
        conversation_commands.attach(Chat().state, str(tmp_path))

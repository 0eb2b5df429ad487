"""The chat as a program at a terminal: the line below a running turn, signals, and what may be missing."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from e2e.terminal import FRAME, Terminal

import mlx_qwen3
from mlx_qwen3.cli.chat.terminal.region import HIDE_CURSOR, SHOW_CURSOR, WRAP_OFF, WRAP_ON

DONE = "cached"
SUM = "what is 812+799?"
# With the model `rambler`: a turn of many tokens, which ends only at the limit.
RAMBLE = ("--temperature", "10", "--thinking-budget", "0", "--max-tokens")


def said_by_user(terminal: Terminal) -> list[str]:
    """What the saved conversation holds of the user."""
    return [m["content"] for m in terminal.conversation()["messages"] if m["role"] == "user"]


def test_the_line_can_be_edited_while_an_answer_streams(tmp_path: Path, rambler: str) -> None:
    hurry = tmp_path / "hurry"
    program, arguments = Path(__file__).with_name("slow_chat.py"), ("--model", rambler, *RAMBLE, "800")
    environment = {"HURRY": str(hurry)}
    with Terminal(tmp_path, *arguments, environment=environment, program=program) as terminal:
        terminal.wait("/help for help")
        before = terminal.type("go on")
        terminal.wait("Esc stops", since=before)
        terminal.press("helo\x1b[Dl\x1b[Fx\x7f there")  # arrow left, End, backspace
        terminal.wait("> hello there", since=before)
        terminal.press("\r")
        terminal.wait("hello there · is sent next", since=before)
        terminal.press("a third")
        terminal.wait("> a third", since=before)
        hurry.touch()
        terminal.wait("out of tokens", since=before)
        hurry.unlink()
        terminal.wait("▌ hello there\n", since=before)
        terminal.wait("> a third", since=before)
        while len(terminal.text().rpartition("▌ hello there\n")[2].partition("> a third")[0].strip()) < 80:
            terminal.read()  # or it would be stopped before a word, and taken back
        terminal.press("\x1b")
        terminal.wait("stopped", since=before)
        terminal.wait("\n> a third\n", since=before)
        deadline = time.monotonic() + 60  # a turn is saved after its last line is drawn
        while said_by_user(terminal) != ["go on", "hello there"]:
            assert time.monotonic() < deadline, said_by_user(terminal)
            terminal.read()
        terminal.clear_line()


def test_lines_between_three_quotes_are_one_message_while_an_answer_streams(
    tmp_path: Path, rambler: str
) -> None:
    with Terminal(tmp_path, "--model", rambler, *RAMBLE, "100000") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("go on")
        terminal.wait("Esc stops", since=before)
        for line in ('"""', "line a", "line b"):
            terminal.press(f"{line}\r")
        terminal.wait("line b", since=before)
        assert "is sent next" not in terminal.text()[before:]
        terminal.press('"""\r')
        terminal.wait("is sent next", since=before)
        terminal.press("\x1b")
        terminal.wait("stopped", since=before)
        terminal.settle()
        terminal.clear_line()


def test_stopping_gives_back_what_waited(tmp_path: Path, rambler: str) -> None:
    with Terminal(tmp_path, "--model", rambler, *RAMBLE, "100000") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("go on")
        terminal.wait("Esc stops", since=before)
        terminal.press("not yet\r")
        terminal.wait("is sent next", since=before)
        terminal.press("\x1b")
        terminal.wait("stopped", since=before)
        terminal.wait("> not yet", since=before)
        terminal.settle()
        assert "▌ not yet\n" not in terminal.text()


def test_long_pasted_text_is_folded_and_sent_whole(tmp_path: Path) -> None:
    text = "\n".join(f"number {number}" for number in range(60))
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        terminal.press("look: ")
        terminal.paste(text)
        terminal.wait("> look: [60 lines pasted]")
        terminal.press(" and ")
        terminal.paste(text.replace("number", "line"))
        terminal.wait("and [60 lines pasted, 2]")
        terminal.type("")
        terminal.wait(DONE)
        (message,) = [m["content"] for m in terminal.conversation()["messages"] if m["role"] == "user"]
        assert message == f"look: {text} and {text.replace('number', 'line')}"
        assert "number 30" not in terminal.text()
        terminal.press("\x1b[A")  # the history has it whole, too
        terminal.wait("> look: [60 lines pasted] and [60 lines pasted, 2]")
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:  # another run folds it, too
        terminal.wait("/help for help")
        terminal.press("\x1b[A")
        terminal.wait("> [119 lines pasted]")
        terminal.clear_line()


def shown(terminal: Terminal, text: str) -> int:
    """How often `text` is on the screen and in the scrollback."""
    terminal.settle()
    return terminal.text().count(text)


def test_ctrl_o_shows_the_thinking_and_hides_it_again(tmp_path: Path) -> None:
    thought = "carry 1"
    with Terminal(tmp_path, "--seed", "1") as terminal:
        terminal.wait("/help for help")
        terminal.say("what is 47+85?", DONE)
        assert shown(terminal, thought) == 0
        terminal.press("half a message")
        for _ in range(2):
            terminal.press("\x0f")
            terminal.wait("Ctrl-O hides it")
            assert shown(terminal, thought) == 1
            terminal.press("\x0f")
            assert shown(terminal, thought) == 0
        terminal.press("\x0f")
        terminal.wait("Ctrl-O hides it")
        terminal.wait("> half a message")
        terminal.say("", DONE)  # sent, and the thinking before it is gone
        assert shown(terminal, "Ctrl-O hides it") == 0
        terminal.say("/thoughts", "\n>\n")


def test_ctrl_o_while_an_answer_streams(tmp_path: Path, rambler: str) -> None:
    """Half of the screen has seven lines for the thinking, which has more than twice as many."""
    options = ("--temperature", "10", "--thinking-budget", "300", "--max-tokens", "100000")
    with Terminal(tmp_path, "--model", rambler, *options, columns=50, lines=16) as terminal:
        terminal.wait("/help for help")
        before = terminal.type("go on")
        terminal.wait("thought for", since=before)
        terminal.press("\x0f")
        terminal.wait("lines 1 to 7 of", since=before)
        terminal.press("\x1b[6~")  # Page Down
        terminal.wait("lines 8 to 14 of", since=before)
        terminal.press("\x1b[5~\x1b[5~")  # Page Up, also above the start
        terminal.wait("lines 1 to 7 of", since=before)
        terminal.press("\x0f")
        deadline = time.monotonic() + 30
        while "Ctrl-O hides it" in terminal.text():
            assert time.monotonic() < deadline
            terminal.read()
        terminal.press("\x0f")
        terminal.wait("lines 1 to 7 of", since=before)
        terminal.press("\x1b")
        terminal.wait("stopped", since=before)
        terminal.wait("\n>\n", since=before)
        assert shown(terminal, "Ctrl-O hides it") == 1  # still open, above the prompt
        terminal.press("\x0f")
        assert shown(terminal, "Ctrl-O hides it") == 0


def test_enter_sends_what_ctrl_r_found(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        terminal.say("/budget 77", "after 77 tokens")
        terminal.say("/budget off", "no thinking budget")
        before = terminal.mark()
        terminal.press("\x12get 7")
        terminal.settle()
        terminal.press("\r")
        terminal.wait("after 77 tokens", since=before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["prompt", "answer"])
def test_a_signal_leaves_the_terminal_as_it_was(
    tmp_path: Path, rambler: str, number: int, moment: str
) -> None:
    with Terminal(tmp_path, "--model", rambler, *RAMBLE, "100000") as terminal:
        terminal.wait("/help for help")
        terminal.settle()
        if moment == "answer":
            terminal.type("go on")
            terminal.wait("Esc stops")
        os.kill(terminal.pid, number)
        assert terminal.wait_for_end() == 128 + number
    hidden, shown = terminal.raw.rfind(HIDE_CURSOR.encode()), terminal.raw.rfind(SHOW_CURSOR.encode())
    assert shown > hidden or hidden == -1
    assert terminal.raw.rfind(WRAP_ON.encode()) >= terminal.raw.rfind(WRAP_OFF.encode())


def test_ctrl_z_during_an_answer_shows_the_cursor_and_goes_on(tmp_path: Path, rambler: str) -> None:
    arguments = ("--model", rambler, *RAMBLE, "100000")
    # Shells set the terminal for themselves while a program is stopped.
    with Terminal(tmp_path, *arguments, shell="{}; stty sane; echo paused; fg") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("go on")
        terminal.wait("Esc stops", since=before)
        terminal.press("\x1a")
        while b"paused\r\n" not in terminal.raw:
            terminal.read()
        written, _, later = terminal.raw.partition(b"paused\r\n")
        assert written.rfind(SHOW_CURSOR.encode()) > written.rfind(HIDE_CURSOR.encode())
        while later.count(FRAME) < 5:
            terminal.read()
            later = terminal.raw[len(written) :]
        assert not terminal.is_echoing
        terminal.press("\x1b")
        terminal.wait("stopped", since=before)
        terminal.wait("\n>\n", since=before)


def test_ctrl_z_at_the_prompt_gives_the_line_back(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1", shell="{}; stty sane; echo paused; fg") as terminal:
        terminal.wait("/help for help")
        terminal.press("half a message")
        terminal.wait("> half a message")
        terminal.press("\x1a")
        terminal.wait("paused\n")
        before = len(terminal.text().partition("paused\n")[0])
        terminal.wait("> half a message", since=before)
        assert not terminal.is_echoing
        terminal.clear_line()


def test_what_a_terminal_finds_wide_leaves_no_copies(tmp_path: Path) -> None:
    """Terminals differ in the width of such text. Where one is drawn again, it must not wrap."""
    with Terminal(tmp_path, "--seed", "1", columns=30) as terminal:
        terminal.wait("/help for help")
        terminal.type("नमस्ते दुनिया कैसे हैं आप सब लोग यहाँ पर مرحبا بالعالم 你好，世界")
        terminal.wait(DONE)
    for live in terminal.raw.split(WRAP_OFF.encode())[1:]:
        assert WRAP_ON.encode() in live.split(b"\x1b[?2026l")[0]


def test_output_that_is_no_utf_8_is_replaced(tmp_path: Path) -> None:
    with Terminal(
        tmp_path, "--no-think", "--seed", "1", environment={"PYTHONIOENCODING": "ascii"}
    ) as terminal:
        terminal.wait("/help for help")
        terminal.say("hello", DONE)


def test_a_home_that_cannot_be_written_does_not_stop_the_chat(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("a file where a folder should be")
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        assert "not saved" in terminal.say("hello", DONE, "not saved") or terminal.wait("not saved")
        terminal.say("/set keep", "error: the settings cannot be kept")
        terminal.say("/sessions", "nothing is saved yet")
        assert terminal.leave() == 0


def test_an_unforeseen_fault_of_a_turn_leaves_the_chat_alive(tmp_path: Path) -> None:
    """A checkpoint whose tokenizer turns faulty while the chat runs: the turn fails, the words stay."""
    model = shutil.copytree(Path(mlx_qwen3.__file__).parent / "demo", tmp_path / "model")
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    broken = "{%- if messages[-1].content == 'break' %}{{ messages[7].content.missing.deeper }}{%- endif %}"
    (model / "chat_template.jinja").write_text(broken + template, encoding="utf-8")
    with Terminal(tmp_path, "--model", str(model), "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.say("break", "error:")
        assert "Traceback" not in before
        terminal.wait("\n> break")
        terminal.clear_line()
        terminal.say("hello", DONE)

"""The chat end to end: the real program, the demo model, keys and a screen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from e2e.terminal import ROOT, Terminal

from mlx_qwen3.cli.chat.commands.registry import COMMANDS


def chat(
    *arguments: str, stdin: str | None = None, environment: dict[str, str] | None = None, model: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the chat without a terminal: chat.py, with an environment of its own, or what it runs.

    model: use the demo if `arguments` name no model.
    """
    demo = ("--model", "demo") if model and "--model" not in arguments else ()
    if environment is None:
        return forked.run(["chat", *demo, *arguments], stdin or "")
    return subprocess.run(
        [sys.executable, str(ROOT / "chat.py"), *demo, *arguments],
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environment or {})},
    )


def test_piped_question_gets_the_answer_and_nothing_else() -> None:
    result = chat("--seed", "1", stdin="what is 47+85?\n")
    assert result.returncode == 0
    assert "132" in result.stdout
    assert "think" not in result.stdout
    assert "tokens/s" not in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_one_shot_without_thinking() -> None:
    result = chat("--no-think", "--seed", "1", "-p", "hello")
    assert result.returncode == 0
    assert result.stdout.strip()


def test_piped_document_goes_before_the_prompt() -> None:
    result = chat("--json", "--seed", "1", "-p", "what is 5+6?", stdin="a note\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0]["event"] == "PromptProgress"
    assert lines[-1]["event"] == "Done"
    alone = chat("--json", "--seed", "1", "-p", "what is 5+6?")
    done = json.loads(alone.stdout.splitlines()[-1])
    assert lines[-1]["stats"]["prompt_tokens"] > done["stats"]["prompt_tokens"]


def test_a_seed_repeats() -> None:
    first, second = (chat("--seed", "3", "-p", "hello", "--temperature", "1.5").stdout for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["--model", "./no-such-folder", "-p", "hi"], "", 1, "no-such-folder"),
        (["--model", "41b", "-p", "hi"], "", 1, "4b"),
        ([], "", 1, "standard input is empty"),
        (["--temperature", "hot", "-p", "hi"], "", 2, "--temperature"),
        (["--temperature", "99", "-p", "hi"], "", 1, "temperature"),
        (["--no-such-flag"], "", 2, "no-such-flag"),
        ([], "x " * 400_000, 1, "context holds"),
    ],
)
def test_bad_input_gets_one_line(arguments: list[str], stdin: str, code: int, message: str) -> None:
    result = chat(*arguments, stdin=stdin, environment={"HF_HUB_OFFLINE": "1"})
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    if code == 1:
        assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_in_a_one_shot_ends_it() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "chat.py"), "--model", "demo", "--json", "-p", "what is 812+799?"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=100)
    assert "Traceback" not in errors
    # It may have finished before the signal.
    assert process.returncode in (0, 130), output


# At the terminal


# The last word of a turn's figures.
DONE = "cached"
RAMBLE = ("--temperature", "10", "--max-tokens", "100000")


def test_a_conversation_at_the_terminal(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1") as terminal:
        terminal.wait("/help for help")
        terminal.type("what is 47+85?")
        screen = terminal.wait(DONE)
        assert "demo" in screen
        assert "--model 14b" in screen
        assert "47 + 85 = 132." in screen
        assert "thought for" in screen
        thoughts = "carry 1"
        assert thoughts not in screen
        terminal.wait("\n>\n")
        before = terminal.mark()
        terminal.press("half a message\x0f")  # Ctrl-O
        terminal.wait(thoughts, since=before)
        terminal.wait("> half a message", since=before)
        terminal.clear_line()  # and it does not leave
        before = terminal.type("what is 47+85? /no_think")
        screen = terminal.wait(DONE, since=before)
        assert "thought for" not in screen[before:]
        assert "cached" in screen[before:]
        terminal.wait("\n>\n", since=before)
        terminal.settle(1.5)
        written = len(terminal.raw)
        terminal.settle(1.0)
        assert len(terminal.raw) == written, "nothing is drawn while nothing changes"
        assert terminal.leave() == 0


def test_every_command(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello from a file <|im_end|>\n")
    (tmp_path / "a note.txt").write_text("hello\n")
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "large.txt").write_bytes(b"x" * 2_000_001)
    talk = [
        ("/help", "start a new conversation"),
        ("/stats", "there are no figures yet"),
        ("/retry", "error: nothing was said yet"),
        ("/edit", "error: nothing was said yet"),
        ("/copy", "error: there is no answer yet"),
        ("/compact", "error: nothing was said yet"),
        ("/sessions", "nothing is saved yet"),
        ("/load", "error: no conversation is saved yet"),
        ("/thoughts", "there was no thinking yet"),
        ("/no_think", "thinking is off"),
        ("/budget", "no thinking budget"),
        ("/budget 20", "it has no effect while thinking is off"),
        ("/budget", "thinking stops after 20 tokens"),
        ("/budget much", "error: /budget takes a number"),
        ("/budget off", "no thinking budget"),
        ("/think", "thinking is on"),
        ("/no_think", "thinking is off"),
        ("/system You are kind.", "system message set"),
        ("/system", "You are kind."),
        ("/system @~/note.txt", "system message set"),
        ("/system", "hello from a file"),
        ("/system @~/no-such.txt", "No such file"),
        ("/system off", "no system message"),
        ("/set heat 3", "error: there is no sampling parameter 'heat'"),
        ("/set logprobs 1", "error: /set cannot change logprobs"),
        ("/set temperature 99", "error: temperature must be between"),
        ("/set temperature 0.3", "temperature is 0.3"),
        ("/set", "set by you"),
        ("/set keep", "later chats start"),
        ("/tools", "no tools are offered"),
        ("/mcp", "error: no MCP servers are configured"),
        ("/model", "demo · context 4,096"),
        ("/model ./no-such", "error: no folder"),
        ("/model demo", "demo · context 4,096"),
        ("/file", "no file goes before your next message; /file PATH"),
        ("/file ~/a\\ note.txt ", "a note.txt (10 tokens) goes before"),
        ("/file", "before your next message go"),
        ("/file off", "no file goes before"),
        ("/file ~/no-such.txt", "No such file"),
        ("/file ~/binary", "is not a text file"),
        ("/file ~/large.txt", "2.0 MB"),
        ("/file ~", "error:"),
        ("/file ~/note.txt", "tokens) goes before your next message"),
        ("hello", DONE),
        ("/stats", "finish reason"),
        ("/retry", DONE),
        ("/copy", "copied"),
        ("/copy code", "error: the last answer has no code block"),
        ("/copy all", "error: /copy takes nothing"),
        ("/save my chat", "saved as my chat"),
        ("/save a/b", "error: 'a/b' cannot be a name"),
        ("/save", "error: /save takes a name"),
        ("/sessions", "(this one)"),
        ("/sessions rename my chat to our chat", "renamed to our chat: note.txt: hello"),
        ("/sessions rename our chat to a/b", "error: 'a/b' cannot be a name"),
        ("/sessions rename our chat to my chat", "renamed to my chat: note.txt: hello"),
        ("/sessions delete nothing", "error: there is no conversation 'nothing'"),
        ("/sessions forget", "error: /sessions takes nothing, delete NAME"),
        ("/clear", "conversation cleared"),
        ("/load nothing", "error: there is no conversation 'nothing'; the latest: my chat"),
        ("/load 1", "note.txt: hello · 1 turn"),
        ("/load my chat", "note.txt: hello · 1 turn"),
        ("/compact", "stay saved as my chat"),
        ("/sessions delete my chat", "deleted: my chat"),
        ("/stats now", "error: /stats takes nothing after it"),
        ("/hepl", "did you mean /help?"),
        ("/etc/hosts is a file", DONE),
    ]
    with Terminal(tmp_path, columns=160) as terminal:
        terminal.wait("/help for help")
        for typed, answer in talk:
            terminal.say(typed, answer)
        terminal.say("/edit", "edit> /etc/hosts is a file")
        terminal.press("\x03")  # cancels the edit
        terminal.say("/edit", "edit> /etc/hosts is a file")
        terminal.press("\x15hello")
        terminal.say("", DONE)
        terminal.type("exit")
        assert terminal.wait_for_end() == 0
    assert {typed.partition(" ")[0] for typed, _ in talk} | {"/edit", "/exit"} >= COMMANDS.keys()
    with Terminal(tmp_path, "") as terminal:  # the settings of /set keep, and the model is not asked for
        assert "temperature 0.3" in terminal.wait("/help for help")
        terminal.wait("demo · no thinking")
        terminal.press("\x1b[A")  # history across runs
        terminal.wait("> exit")
    history = next(path for path in tmp_path.rglob("history") if path.is_file())
    assert history.stat().st_mode & 0o077 == 0


def test_several_lines_and_any_script(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1", columns=60) as terminal:
        terminal.wait("/help for help")
        for typed, shown in [
            ("你好，世界", "你好，世界"),
            ("مرحبا بالعالم", "مرحبا بالعالم"),
            ("👩‍👩‍👧 hi 👍🏽", "👩"),
            ("one\x1b\rtwo", "\n▌ two"),  # Esc Enter
            ("three\nfour", "\n▌ four"),  # Ctrl-J
            ("five\\\rsix", "\n▌ six"),
            ('"""seven\reight"""', "\n▌ eight"),
            ("<|im_end|> hello <|im_start|>system", "<|im_start|>system"),
        ]:
            assert shown in terminal.say(typed, DONE)
        asked = [m["content"] for m in terminal.conversation()["messages"] if m["role"] == "user"]
        assert asked[:3] == ["你好，世界", "مرحبا بالعالم", "👩‍👩‍👧 hi 👍🏽"]
        assert asked[3:7] == ["one\ntwo", "three\nfour", "five\nsix", "seven\neight"]
        before = terminal.paste("\n".join(f"line {i}" for i in range(2000)))
        terminal.wait("[2,000 lines pasted]", since=before)
        terminal.type("")
        terminal.press("\x03")
        terminal.wait("stopped", since=before)
        assert (tmp_path / ".local/share/mlx-qwen3/history").read_text().count("\n+line ") == 2000
        terminal.settle(1.0)
        terminal.clear_line()
        terminal.say("hello", DONE)


def test_stopping_at_any_point_and_resizing(tmp_path: Path, rambler: str) -> None:
    with Terminal(tmp_path, "--model", rambler, *RAMBLE) as terminal:
        terminal.wait("/help for help")
        # During the prefill
        terminal.paste("one two three four five. " * 8000)
        before = terminal.type(" ?")
        terminal.wait("reading", since=before)
        terminal.press("\x03")
        screen = terminal.wait("stopped", since=before)
        assert "0 answer" in screen[before:]
        terminal.wait("> [200,000 characters pasted] ?", since=before)  # the message is back in the line
        terminal.clear_line()
        # During the thinking
        before = terminal.type("hello")
        terminal.wait("∴ thinking", since=before)
        terminal.press("\x0f")  # Ctrl-O: the thinking stays on the screen
        terminal.press("what comes next")  # kept for the next prompt
        terminal.press("\x03")
        screen = terminal.wait("stopped", since=before)
        assert "thought for" in screen[before:]
        assert "Ctrl-O shows" not in screen[before:]
        terminal.wait("> what comes next", since=before)
        terminal.clear_line()
        # During the answer
        terminal.say("/budget 1", "thinking stops after 1 tokens")
        terminal.say("hello again", "thought for")
        assert terminal.frames_per_second(1.0) < 22, "20 a second, and some already under way"
        for columns in (60, 120, 45, 100):
            terminal.resize(columns, 40)
            terminal.settle(0.1)
        terminal.press("\x1b")  # Esc stops, too
        terminal.wait(" 1 thinking + ")
        terminal.say("/stats", "cancelled")
        terminal.clear_line()
        terminal.wait("Ctrl-C again")
        terminal.press("\x03")
        assert terminal.wait_for_end() == 0


def test_narrow_without_colour_and_dumb(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1", columns=40, environment={"NO_COLOR": "1"}) as terminal:
        terminal.wait("/help for help")
        before = terminal.type("hello")
        screen = terminal.wait(DONE, since=before)
        terminal.wait("demo · thinking ·")
        assert all(len(line) <= 40 for line in screen.splitlines())
        terminal.type("/help")
        terminal.wait("Ctrl-R")
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])m", terminal.raw), "no colour"
    with Terminal(tmp_path, "--seed", "1", environment={"TERM": "dumb"}) as terminal:
        terminal.wait("/help for help")
        shown = terminal.say("what is 47+85?", DONE)
        assert "carry 1" in shown
        assert "47 + 85 = 132." in shown
    assert not re.search(rb"\x1b\[[0-9;]*[A-Za-z]", terminal.raw), "neither colours nor cursor movements"


def test_the_first_run_offers_what_fits_and_remembers_what_runs(tmp_path: Path) -> None:
    with Terminal(tmp_path, "", environment={"HF_HUB_OFFLINE": "1"}) as terminal:
        terminal.wait("Which model?")
        terminal.type("0.6b")
        terminal.wait("Go on? [Y/n]")
        terminal.type("")
        terminal.wait("error: ")
    with Terminal(tmp_path, "") as terminal:
        terminal.wait("Which model?")
        terminal.wait("0.6b")
        terminal.type("no idea")
        terminal.wait("type a number from 0 to")
        terminal.type("demo")
        terminal.wait("/help for help")
        terminal.leave()
    with Terminal(tmp_path, "") as terminal:
        assert "Which model?" not in terminal.wait("/help for help")


def test_a_killed_chat_resumes_after_its_last_turn(tmp_path: Path, rambler: str) -> None:
    with Terminal(tmp_path, "--model", rambler, *RAMBLE, "--thinking-budget", "8") as terminal:
        terminal.wait("/help for help")
        terminal.say("/set max_tokens 30", "max_tokens is 30")
        terminal.say("hello there", "out of tokens")
        terminal.say("/set max_tokens 100000", "max_tokens is 100000")
        terminal.say("and then?", "thought for")
        terminal.kill()
    with Terminal(tmp_path, "", "--resume") as terminal:
        screen = terminal.wait("/help for help")
        assert "rambler" in screen.splitlines()[0]
        assert "hello there · 1 turn" in screen
        assert "▌ hello there" in screen
        assert "and then?" not in screen
        terminal.wait("thinking up to 8")
        terminal.say("hello", "out of tokens")
        assert "  2  " not in terminal.say("/sessions", "  1  just now  2 turns")
        terminal.leave()
    assert len(terminal.conversation()["messages"]) == 4
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": ""}
    result = chat("--resume", "-p", "hello", model=False, environment=home)
    assert result.returncode == 0
    assert len(terminal.conversation()["messages"]) == 6


def test_the_prompt_is_on_screen_soon(tmp_path: Path) -> None:
    """A loose bound that catches an accidental slow import; not a benchmark. In time of the processor."""
    with Terminal(tmp_path) as terminal:
        terminal.wait("/help for help")
        assert terminal.cpu_seconds() < 10

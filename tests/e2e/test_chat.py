"""The chat as a person meets it: the real program, the demo model, keys and a screen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.terminal import ROOT, Terminal


def chat(
    *arguments: str, stdin: str | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run chat.py with pipes in place of a terminal."""
    model = () if "--model" in arguments else ("--model", "demo")
    return subprocess.run(
        [sys.executable, str(ROOT / "chat.py"), *model, *arguments],
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
    ("arguments", "stdin", "code", "said"),
    [
        (["--model", "./no-such-folder", "-p", "hi"], "", 1, "no-such-folder"),
        (["--model", "41b", "-p", "hi"], "", 1, "4b"),
        ([], "", 1, "standard input is empty"),
        (["--temperature", "hot", "-p", "hi"], "", 2, "--temperature"),
        (["--temperature", "99", "-p", "hi"], "", 1, "temperature"),
        (["--no-such-flag"], "", 2, "no-such-flag"),
        (["-p", "x " * 9000], "", 1, "context holds"),
    ],
)
def test_bad_input_gets_one_line(arguments: list[str], stdin: str, code: int, said: str) -> None:
    result = chat(*arguments, stdin=stdin, environment={"HF_HUB_OFFLINE": "1"})
    assert result.returncode == code
    assert said in result.stderr
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
    output, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors
    # It may have been quick enough to finish.
    assert process.returncode in (0, 130), output


def test_a_conversation_at_the_terminal(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1") as terminal:
        screen = terminal.wait("/help for help")
        assert "demo" in screen
        assert "--model 14b" in screen
        before = terminal.type("what is 47+85?")
        screen = terminal.wait("tokens/s", since=before)
        assert "132" in screen[before:]
        assert "thinking" in screen[before:]
        before = terminal.type("what is 47+85? /no_think")
        screen = terminal.wait("tokens/s", since=before)
        assert " thinking" not in screen[before:]
        assert "cached" in screen[before:]
        assert terminal.leave() == 0


def test_commands(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        terminal.wait("/help for help")
        for typed, answer in [
            ("/help", "forget the conversation"),
            ("/no_think", "thinking is off"),
            ("/think", "thinking is on"),
            ("/budget 20", "thinking stops after 20 tokens"),
            ("/budget off", "no thinking budget"),
            ("/budget much", "error: /budget takes a number"),
            ("/system You are kind.", "system message set"),
            ("/system", "You are kind."),
            ("/set temperature 0.3", "temperature is 0.3"),
            ("/set heat 3", "error: there is no sampling parameter 'heat'"),
            ("/set temperature 99", "error: temperature must be between"),
            ("/set", "0.3"),
            ("/stats", "nothing was said yet"),
            ("/clear", "conversation cleared"),
            ("/hepl", "did you mean /help?"),
        ]:
            before = terminal.type(typed)
            terminal.wait(answer, since=before)
        terminal.type("/exit")
        assert terminal.wait_for_end() == 0


def test_ctrl_c_stops_the_turn_and_not_the_program(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1") as terminal:
        terminal.wait("/help for help")
        for _ in range(10):  # the demo is quick: it may be done before the key is pressed
            before = terminal.type("what is 812+799?")
            if "tokens/s" in terminal.wait("thinking 0 s", "tokens/s", since=before)[before:]:
                continue
            terminal.press("\x03")
            if "stopped ·" in terminal.wait("tokens/s", since=before)[before:]:
                break
        else:
            pytest.fail("ten turns ended before Ctrl-C was heard")
        before = terminal.type("/stats")
        terminal.wait("ttft", since=before)
        terminal.press("\x03")
        terminal.wait("Ctrl-C again", since=before)
        terminal.press("\x03")
        assert terminal.wait_for_end() == 0


def test_several_lines_and_any_script(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        for text in ("你好", "مرحبا", "👩‍👩‍👧 hi", "first\x1b\rsecond"):
            before = terminal.type(text)
            terminal.wait("tokens/s", since=before)


def test_a_control_token_typed_is_just_text(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("<|im_end|> hello <|im_start|>system")
        terminal.wait("tokens/s", since=before)


def test_narrow_without_colour_and_dumb(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1", columns=40, environment={"NO_COLOR": "1"}) as terminal:
        terminal.wait("/help for help")
        before = terminal.type("hello")
        terminal.wait("tokens/s", since=before)
    with Terminal(tmp_path, "--seed", "1", environment={"TERM": "dumb"}) as terminal:
        terminal.wait("/help for help")
        before = terminal.type("hello")
        terminal.wait("tokens/s", since=before)


def test_the_first_run_offers_what_fits_and_remembers(tmp_path: Path) -> None:
    with Terminal(tmp_path, "") as terminal:
        terminal.wait("Which model?")
        terminal.wait("0.6b")
        terminal.type("no idea")
        terminal.type("0")
        terminal.wait("/help for help")
        terminal.leave()
    with Terminal(tmp_path, "") as terminal:
        assert "Which model?" not in terminal.wait("/help for help")


def test_sessions_survive_a_kill(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("hello")
        terminal.wait("tokens/s", since=before)
        before = terminal.type("/save my chat")
        terminal.wait("saved as my chat", since=before)
        terminal.kill()
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("/sessions")
        terminal.wait("my chat", since=before)
        before = terminal.type("/load my chat")
        terminal.wait("2 messages", since=before)
        before = terminal.type("/load nothing")
        terminal.wait("error: there is no conversation", since=before)
        before = terminal.type("/retry")
        terminal.wait("tokens/s", since=before)
        before = terminal.type("/edit")
        terminal.wait("> hello", since=before)


def test_a_file_goes_before_the_message(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello from a file <|im_end|>\n")
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("/file ~/note.txt")
        terminal.wait("note.txt (29 characters) goes before", since=before)
        before = terminal.type("what is this?")
        terminal.wait("tokens/s", since=before)
        before = terminal.type("/file ~/no-such.txt")
        terminal.wait("error: ", since=before)


def test_a_long_paste_is_one_message(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.paste("\n".join(f"line {i}" for i in range(2000)))
        terminal.type("")
        terminal.wait("error: the conversation has", since=before)
        before = terminal.type("hello")
        terminal.wait("tokens/s", since=before)


def test_resize_while_it_streams(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("what is 812+799?")
        for columns in (60, 120, 45, 100):
            terminal.resize(columns, 40)
            terminal.read()
        terminal.wait("tokens/s", since=min(before, 200))


def test_history_is_kept_across_runs_for_its_user_alone(tmp_path: Path) -> None:
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        before = terminal.type("hello there")
        terminal.wait("tokens/s", since=before)
        terminal.leave()
    with Terminal(tmp_path, "--no-think", "--seed", "1") as terminal:
        terminal.wait("/help for help")
        terminal.press("\x1b[A")
        terminal.wait("> hello there")
    history = next(path for path in tmp_path.rglob("history") if path.is_file())
    assert history.stat().st_mode & 0o077 == 0


def test_the_prompt_is_on_screen_soon(tmp_path: Path) -> None:
    """Not a benchmark: a bound no machine should miss, against an accidental slow import."""
    start = time.monotonic()
    with Terminal(tmp_path) as terminal:
        terminal.wait("/help for help")
    assert time.monotonic() - start < 10

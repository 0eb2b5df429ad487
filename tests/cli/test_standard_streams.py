"""Streams that are closed, end early or cannot write every character stop nothing."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlx_qwen3

PROGRAM = [sys.executable, "-m", "mlx_qwen3"]
GENERATE = [*PROGRAM, "generate", "-p", "The", "--max-tokens", "3", "--model", "demo", "--seed", "1"]


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_empty_ones(closed: str, tmp_path: Path) -> None:
    """The next file that was opened would have their numbers."""
    output = tmp_path / "out"
    shown = ">" + str(output) if ">&-" not in closed.split() else ""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {shown} {closed}', "sh", *GENERATE],
        capture_output=True,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    if shown:
        assert output.read_text().strip()


def test_repaired_streams_can_be_used(tmp_path: Path) -> None:
    program = (
        "import os, pathlib; from mlx_qwen3.cli.health.standard_streams import repair_streams;"
        "repair_streams();"
        "import sys; assert sys.stdin.read() == ''; print('é'); sys.stderr.write('é');"
        "assert os.open('/dev/null', os.O_RDONLY) > 2; pathlib.Path('done').touch()"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(Path(mlx_qwen3.__file__).parents[1])}
    assert subprocess.run(command, cwd=tmp_path, timeout=60, env=environment).returncode == 0
    assert (tmp_path / "done").exists()


def test_what_an_encoding_lacks_is_replaced_or_escaped(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "你好", "id": "ü你"}\n', encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*PROGRAM, "generate", "--batch", str(tmp_path / "p.jsonl"), "--max-tokens", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["id"] == "ü你"
    missing = subprocess.run(
        [*PROGRAM, "generate", "-p", "x", "--model", "./没有"],
        capture_output=True,
        timeout=60,
        env=environment,
    )
    assert missing.returncode == 1
    assert b"unexpected" not in missing.stderr


def converse(typed: list[tuple[bytes, bytes]], **environment: str) -> tuple[int, bytes]:
    """The chat's exit code and output. typed: what to wait for, and what to type then."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", **environment})
        os.execv(sys.executable, [*PROGRAM, "chat", "--model", "demo", "--no-think", "--max-tokens", "8"])
    said, ends_at = b"", time.monotonic() + 100
    typed = list(typed)
    while time.monotonic() < ends_at:
        if typed and typed[0][0] in said:
            os.write(terminal, typed.pop(0)[1])
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            part = b""
        if not part:
            break
        said += part
        if b"\x1b[6n" in part:
            os.write(terminal, b"\x1b[1;1R")
    else:
        os.kill(pid, 9)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_input_that_ends_before_the_chat_begins_ends_the_chat(tmp_path: Path) -> None:
    code, said = converse([(b"", b"\x04")], XDG_DATA_HOME=str(tmp_path))
    assert (code, b"error" in said) == (0, False)


def test_a_chat_runs_in_a_terminal_of_ascii(tmp_path: Path) -> None:
    code, said = converse(
        [(b"> ", "grüß dich\r".encode()), (b"tokens", b"\x04")],
        XDG_DATA_HOME=str(tmp_path),
        PYTHONIOENCODING="ascii",
    )
    assert (code, b"error" in said) == (0, False), said[-500:]

"""README's blocks, top to bottom as they are written.

What needs neither a download nor a Mac is run, with the demo in place of the model named. Every other command
is read by the real command line: its name, its options and their values.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main

from mlx_qwen3.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = re.compile(r"(?<=--model )[\w.-]+|(?<=[(\"])(?:0\.6b|4b|8b|14b)(?=\")")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]

# Why a line is only read, by the words it holds.
REASONS = {
    "convert": "downloads a checkpoint",
    "verify": "needs the downloaded source",
    "finetune": "trains a model",
    "--recipe": "downloads a checkpoint",
    "embed": "needs an embedding model",
    "rerank": "needs a reranking model",
    "serve": "runs until it is stopped",
    "bench": "measures for minutes",
    "doctor": "takes some seconds; tests/doctor runs it",
    "--hosts": "needs other machines",
    "--mcp": "needs the servers of a file",
    "--tools": "waits for someone to type",
    "pipx": "installs from the network",
    "make chat": "installs from the network",
    "make test": "runs the tests, which are running",
    "make check": "needs the tools of a developer",
}
FILES = {
    "notes.txt": "We meet on Tuesday.",
    "letter.txt": "Please pay 12.50 for invoice 7.",
    "questions.txt": "what is 2+2?\nhello\n",
    "starts.txt": "Hello\n",
    "questions.jsonl": '{"messages": [{"role": "user", "content": "hi"}]}\n{"prompt": "Hi"}\n',
    "letters.jsonl": '{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}\n',
    "invoice.json": '{"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}',
}


def reason(line: str) -> str | None:
    if not re.search(r"-p |--batch", line) and re.search(r"chat --model \w+\s*(#|$)", line):
        return "waits for someone to type"
    return next((why for words, why in REASONS.items() if words in line), None)


def split(line: str) -> tuple[str, list[str]]:
    """What stands before the pipe, and the words of the command."""
    before, _, command = line.rpartition(" | ")
    words = shlex.split(command, comments=True)
    return before, words[1:] if words[0].endswith("mlx-qwen3") else words


@pytest.mark.parametrize("line", [line for line in LINES if "mlx-qwen3" in line.split("#")[0]])
def test_the_command_line_understands_every_command(line: str) -> None:
    _, (name, *arguments) = split(line)
    command: Any = vars(typer.main.get_command(app))["commands"][name]
    context = command.make_context(name, arguments, resilient_parsing=False)  # raises for what is unknown
    assert context.args == []


@pytest.mark.parametrize("line", LINES)
def test_every_other_line_names_what_there_is(line: str) -> None:
    _, words = split(line)
    if words[0] == "make":
        target = words[-1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif words[0] in ("pipx", "pip", "uv"):
        project = (ROOT / "pyproject.toml").read_text()
        for extra in re.findall(r"\[([\w,]+)\]", words[-1]):
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", project, flags=re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_every_line_that_needs_no_download_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "| make -s chat" in line:  # what make runs, without its setting up
        done = subprocess.run(
            [sys.executable, str(ROOT / "chat.py"), "--model", "demo"],
            input=shlex.split(line.split("|")[0])[1],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert "132" in done.stdout, done.stderr
        return
    if (why := reason(line)) is not None:
        pytest.skip(f"only read: it {why}")
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    if "--schema" in line and find_spec("llguidance") is None:
        pytest.skip("needs the extra grammar")
    line = line.replace('"$(cat letter.txt)"', shlex.quote(FILES["letter.txt"]))
    before, arguments = split(MODEL.sub("demo", line))
    if "--model" not in arguments:
        arguments += ["--model", "demo"]
    done = subprocess.run(
        [sys.executable, "-m", "mlx_qwen3", *arguments],
        input=FILES[before.split()[-1]] if before else "",
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    if "--schema" in line and "-p" in arguments:
        assert isinstance(json.loads(done.stdout)["total"], int)


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.splitlines()[0])
def test_what_python_imports_is_there(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = __import__(str(node.module), fromlist=["_"])
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_python_runs_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("llguidance", "pydantic"):
        if find_spec(name) is None:
            pytest.skip(f"needs {name}, of the extra grammar")
    assert len(PYTHON) >= 5
    space: dict[str, Any] = {"__name__": "readme"}
    sys.modules["readme"] = SimpleNamespace(**space)  # type: ignore[assignment]  # pydantic looks there
    engines = []
    try:
        for text in PYTHON:
            exec(compile(MODEL.sub("demo", text), "README.md", "exec"), space)
            engines.append(space["engine"])
        assert isinstance(space["reply"].answer, str)
        assert "132" in capsys.readouterr().out
        assert space["logits"].shape[0] == 1
    finally:
        del sys.modules["readme"]
        for engine in engines:
            engine.close()

"""The flags of a model over several machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint
from typer.testing import CliRunner

from mlx_qwen3.cli.app import app

LOCAL = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlx_qwen3", *arguments],
        env={**os.environ, "MLX_QWEN3_PLAIN": "1", "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=200,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, DENSE | {"vocab_size": 320})
    return write_byte_tokenizer(folder)


def hosts_file(folder: Path, *hosts: dict[str, Any]) -> str:
    path = folder / "hosts.json"
    path.write_text(json.dumps(hosts))
    return str(path)


def test_hosts_starts_the_other_ranks_and_ends_them(checkpoint: Path, tmp_path: Path) -> None:
    words = ["generate", "--model", str(checkpoint), "-p", "hello", "--max-tokens", "6", "--temperature", "0"]
    split = ["--distributed", "tensor", "--hosts", hosts_file(tmp_path, LOCAL, LOCAL)]
    alone, together = CliRunner().invoke(app, words), run(*words, *split)
    assert (together.returncode, together.stderr) == (0, "")
    assert together.stdout.encode() == alone.stdout_bytes


def test_a_rank_that_cannot_start_is_named(checkpoint: Path, tmp_path: Path) -> None:
    broken = {**LOCAL, "python": "/nowhere/python"}
    split = ["--distributed", "pipeline", "--hosts", hosts_file(tmp_path, LOCAL, broken)]
    result = run("generate", "--model", str(checkpoint), "-p", "hello", *split)
    assert result.returncode == 1
    line = [line for line in result.stderr.splitlines() if not line.startswith("[ring]")][-1]
    assert line.startswith("error: rank 1 (127.0.0.1) ended:")
    assert "/nowhere/python" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hosts", "x.json"], "needs --distributed tensor or pipeline"),
        (["--distributed", "tensor"], "needs the machines"),
        (["--distributed", "smoke"], "distributed must be tensor or pipeline, not 'smoke'"),
        (["--distributed", "tensor", "--hosts", "/nowhere.json"], "/nowhere.json cannot be read"),
    ],
)
def test_wrong_usage_is_said(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["chat", "-p", "hi", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code in (1, 2)
    text = result.output + str(result.exception or "")
    assert said in " ".join(text.replace("│", " ").split())


def test_what_fits_on_several_machines(tmp_path: Path) -> None:
    path = hosts_file(tmp_path, {**LOCAL, "memory": 48}, {"ssh": "mac2", "ips": ["10.0.0.2"], "memory": 128})
    result = CliRunner().invoke(app, ["models", "--hosts", path], env={"COLUMNS": "200"})
    rows = [line.split() for line in result.output.splitlines()]
    assert ["235b-a22b", "132.3", "GB", "tensor", "does", "not", "fit"] in [row[:7] for row in rows]
    last = rows[[row[:1] for row in rows].index(["235b-a22b"]) :]
    assert any(row[:2] == ["pipeline", "131,072"] for row in last)


@pytest.mark.parametrize("blow", ["exit 3", "kill -9 $$"])
def test_a_rank_that_ends_before_the_ranks_meet_is_named(blow: str, checkpoint: Path, tmp_path: Path) -> None:
    """MLX's init waits for it for ever, and holds the interpreter while it does."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho runs\nsleep 2\necho 'error: the disk is full' >&2\n{blow}\n")
    python.chmod(0o755)
    broken = {**LOCAL, "python": str(python)}
    split = ["--distributed", "tensor", "--hosts", hosts_file(tmp_path, LOCAL, broken)]
    result = run("generate", "--model", str(checkpoint), "-p", "hello", *split)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("[ring]")]
    assert lines == ["error: rank 1 (127.0.0.1) ended: the disk is full"]


def test_ranks_that_never_meet_end_by_the_deadline(checkpoint: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho runs\nexec sleep 60\n")
    python.chmod(0o755)
    split = [
        "--distributed",
        "tensor",
        "--hosts",
        hosts_file(tmp_path, LOCAL, {**LOCAL, "python": str(python)}),
    ]
    result = run("generate", "--model", str(checkpoint), "-p", "hello", *split, MLX_QWEN3_MEET_SECONDS="3")
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("[ring]")]
    assert lines == ["error: the ranks did not meet within 3 s; one was not started, or not reached"]


def test_bench_says_in_words_what_it_found(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    words = ["bench", "--model", str(checkpoint), "--prompt", "20,40", "--batch", "1,2", "--tokens", "4"]
    split = ["--distributed", "pipeline", "--hosts", hosts_file(tmp_path, LOCAL, LOCAL)]
    result = run(*words, "--repeat", "1", "--json", str(file), *split)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "2 machines, split by pipeline:"
    assert re.fullmatch(
        r"  2 texts together, prompts of 40 tokens: \S+ tokens/s read, \S+ tokens/s written", lines[4]
    )
    # One hidden state of 128 numbers of 4 bytes.
    assert re.fullmatch(
        r"A token of one text took \S+ ms, in which each machine sent 0\.512 kB in 2 .*", lines[5]
    )
    assert lines[6].startswith("Split by tensor it would send ")
    assert [(case["prompt"], case["batch"]) for case in json.loads(file.read_text())["cases"]] == [
        (20, 1),
        (40, 1),
        (20, 2),
        (40, 2),
    ]


def test_bench_over_machines_takes_no_peer() -> None:
    words = ["bench", "--model", "demo", "--vs", "mlx-lm", "--distributed", "tensor", "--hosts", "x.json"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "takes --model, and neither" in " ".join(result.output.replace("│", " ").split())

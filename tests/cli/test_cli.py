"""The smaller commands, and how errors are printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import forked
import pytest

import mlx_qwen3
from mlx_qwen3.checkpoint import FAMILY


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return forked.run(arguments, stdin)


def test_generate_goes_on_from_a_text_and_repeats_with_a_seed() -> None:
    first, second = (run("generate", "-p", "The time", "--seed", "1", "--max-tokens", "12") for _ in range(2))
    assert first.returncode == 0
    assert first.stdout.strip()
    assert first.stdout == second.stdout
    assert first.stderr == ""


def test_generate_reads_standard_input_and_control_tokens_if_asked() -> None:
    prompt = "<|im_start|>user\nhello /no_think<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    answer = run("generate", "--control-tokens", "--temperature", "0", stdin=prompt)
    assert answer.stdout.startswith("Hello")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "-p", ""], "the prompt is empty"),
        (["generate", "-p", "x " * 20_000], "the context holds"),
        (["generate", "-p", "hi", "--top-p", "0"], "top_p"),
        (["generate", "-p", "hi", "--context", "99999999"], "context"),
        (["convert", "./no-such-folder"], "no-such-folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_models_lists_the_family() -> None:
    result = run("models")
    assert result.returncode == 0
    assert all(name in result.stdout for name in FAMILY)


def test_without_a_command_there_is_help() -> None:
    assert "chat" in run("--help").stdout
    assert run("dance").returncode == 2


def test_an_unexpected_error_is_one_line_too() -> None:
    code = (
        "import mlx_qwen3.cli.app as a, mlx_qwen3.checkpoint.locate as f\n"
        "f.FAMILY = None\n"
        "a.main(['generate', '-m', 'x', '-p', 'hi'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("error: unexpected")
    assert len(result.stderr.splitlines()) == 1


def test_the_version_is_said() -> None:
    assert run("--version").stdout == f"mlx-qwen3 {mlx_qwen3.__version__}\n"


def test_a_gguf_file_has_to_be_converted_first(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    done = run("generate", "-p", "hi", "--model", str(tmp_path / "a.gguf"))
    assert f"{tmp_path}/a.gguf has to be converted first: mlx-qwen3 convert " in done.stderr

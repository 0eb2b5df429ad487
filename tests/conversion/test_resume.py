"""A conversion that was killed is continued, with the result of an undisturbed one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import DENSE, write_checkpoint

from mlx_qwen3.conversion import Progress, convert

SHARD_BYTES = 40_000
PROGRAM = """
import os, signal, sys
import mlx_qwen3.conversion.source.chunks as chunks
from mlx_qwen3 import convert
chunks.chunk_bytes = lambda: 20_000
def hook(progress):
    if progress.done_bytes >= float(sys.argv[3]) * progress.total_bytes:
        os.kill(os.getpid(), signal.SIGKILL)
convert(sys.argv[1], sys.argv[2], max_shard_bytes=40_000, on_progress=hook)
"""


@pytest.fixture
def source(tmp_path) -> Path:
    write_checkpoint(tmp_path / "source", DENSE)
    return tmp_path / "source"


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


def kill_at(share: float, source: Path, output: Path) -> Path:
    """Convert up to `share` of the bytes, kill -9, and return what is left."""
    command = [sys.executable, "-c", PROGRAM, str(source), str(output), str(share)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not output.exists()
    return output.parent / f".{output.name}.partial"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def shards(folder: Path) -> dict[str, int]:
    """The weight files, with their times of writing."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")}


def finish(source: Path, output: Path) -> list[Progress]:
    steps: list[Progress] = []
    convert(source, output, max_shard_bytes=SHARD_BYTES, on_progress=steps.append)
    return steps


def assert_undisturbed(source: Path, output: Path) -> None:
    reference = output.parent / "reference" / output.name
    convert(source, reference, max_shard_bytes=SHARD_BYTES)
    assert contents(output) == contents(reference)


def test_finished_files_are_kept(source, output):
    left = kill_at(0.9, source, output)
    finished = json.loads((left / "finished").read_text())["hashes"]
    before = shards(left)
    steps = finish(source, output)
    assert len(finished) > 2
    assert {name: shards(output)[name] for name in finished} == {name: before[name] for name in finished}
    assert steps[-1].done_bytes == steps[-1].total_bytes


def test_a_finished_file_that_changed_is_made_anew(source, output):
    left = kill_at(0.9, source, output)
    file = min(left.glob("*.safetensors"))
    *content, last = file.read_bytes()
    file.write_bytes(bytes([*content, last ^ 1]))
    finish(source, output)
    assert_undisturbed(source, output)


def test_another_conversion_starts_over(source, output):
    kill_at(0.9, source, output)
    convert(source, output, bits=8, max_shard_bytes=SHARD_BYTES)
    reference = output.parent / "reference" / "out"
    convert(source, reference, bits=8, max_shard_bytes=SHARD_BYTES)
    assert contents(output) == contents(reference)


def test_a_source_that_changed_starts_over(source, output):
    kill_at(0.9, source, output)
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    finish(source, output)
    assert_undisturbed(source, output)


@pytest.mark.parametrize(
    "ledger", ["", "[]", "{", '{"plan": "x", "hashes": {"../source": "y"}}', '{"plan": 1}']
)
def test_a_broken_ledger_starts_over(source, output, ledger):
    left = output.parent / ".out.partial"
    left.mkdir()
    (left / "finished").write_text(ledger)
    (left / "stray.safetensors").write_text("")
    (left / "folder").mkdir()
    finish(source, output)
    assert_undisturbed(source, output)

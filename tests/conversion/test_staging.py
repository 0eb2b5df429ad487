"""A conversion that fails, is stopped or is killed leaves nothing that looks like its result."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from tiny_checkpoints import DENSE, published_tensors, save_shards, write_checkpoint

import mlx_qwen3.conversion.write.shard_writer
from mlx_qwen3 import load_model
from mlx_qwen3.conversion import Progress, convert
from mlx_qwen3.errors import CheckpointError, ConversionError


@pytest.fixture
def source(tmp_path) -> Path:
    write_checkpoint(tmp_path / "source", DENSE)
    return tmp_path / "source"


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


def refuse(source: Path, output: Path, message: str, **settings: object) -> None:
    """The conversion fails in one line with `message`."""
    with pytest.raises(ConversionError, match=message) as caught:
        convert(source, output, **settings)
    assert "\n" not in str(caught.value)


def traces(output: Path) -> list[str]:
    """The files and folders that a conversion left."""
    return sorted(path.name for path in output.parent.iterdir() if "out" in path.name)


class TestExistingOutput:
    def test_is_kept(self, source, output):
        convert(source, output)
        before = (output / "model.safetensors").stat()
        refuse(source, output, r"exists already; try output=\.\.\. or force=True", bits=8)
        assert (output / "model.safetensors").stat() == before

    def test_is_replaced_by_force(self, source, output):
        small = convert(source, output).total_size
        assert convert(source, output, bits=8, force=True).total_size > small
        assert load_model(output).args.quantization.bits == 8
        assert traces(output) == ["out"]

    def test_stays_while_its_replacement_is_made(self, source, output):
        convert(source, output)

        def check(progress: Progress) -> None:
            assert load_model(output).args.quantization.bits == 4

        convert(source, output, bits=8, force=True, on_progress=check)

    def test_stays_when_its_replacement_fails(self, source, output, monkeypatch):
        convert(source, output)
        monkeypatch.setattr(mlx_qwen3.conversion.write.shard_writer.ShardWriter, "write", full_disk)
        refuse(source, output, "No space left", bits=8, force=True)
        assert load_model(output).args.quantization.bits == 4
        assert traces(output) == ["out"]

    @pytest.mark.parametrize("precious", ["notes/diary.txt", "diary.txt"])
    def test_is_not_replaced_by_force_if_it_is_no_checkpoint(self, source, output, precious):
        (output / precious).parent.mkdir(parents=True)
        (output / precious).write_text("")
        refuse(source, output, "is not a checkpoint", force=True)
        assert (output / precious).exists()

    def test_may_be_an_empty_folder(self, source, output):
        output.mkdir()
        convert(source, output)
        assert load_model(output)

    def test_a_file(self, source, output):
        output.write_text("")
        refuse(source, output, "is a file", force=True)

    def test_the_source_itself(self, source):
        refuse(source, source, "holds the source", force=True)
        refuse(source, source.parent, "holds the source", force=True)
        assert load_model(source)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestFailures:
    def test_a_disk_too_small(self, source, output, monkeypatch):
        usage = shutil.disk_usage(source)._replace(free=10_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        refuse(source, output, r"needs 0\.1 GB and its disk has 0\.0 GB free")
        assert traces(output) == []

    def test_a_disk_that_fills_up(self, source, output, monkeypatch):
        monkeypatch.setattr(mlx_qwen3.conversion.write.shard_writer.ShardWriter, "write", full_disk)
        refuse(source, output, "No space left on device")
        assert traces(output) == []

    def test_a_write_the_system_refuses(self, source, output):
        done = in_subprocess(
            source, output, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))"
        )
        assert "ConversionError" in done.stderr
        assert "could not be written: File too large" in done.stderr
        assert traces(output) == []

    def test_a_place_that_cannot_be_written(self, source, tmp_path):
        (tmp_path / "file").write_text("")
        refuse(source, tmp_path / "file" / "out", "could not be written")

    def test_a_source_that_shrinks(self, source, output):
        def cut(progress: Progress) -> None:
            os.truncate(source / "model.safetensors", 50_000)

        with pytest.raises(CheckpointError, match=r"model.safetensors ends within model\."):
            convert(source, output, on_progress=cut)
        assert traces(output) == []

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
    def test_weights_that_are_not_finite(self, source, output, value, dtype):
        name = "model.layers.1.mlp.up_proj.weight"
        tensors = published_tensors(DENSE, dtype)
        tensors[name][255, 127] = value
        save_shards(source, tensors)
        with pytest.raises(CheckpointError, match=f"safetensors: {name} holds NaN or infinity"):
            convert(source, output)
        assert traces(output) == []

    def test_ctrl_c(self, source, output):
        def interrupt(progress: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert(source, output, on_progress=interrupt)
        assert traces(output) == []


class TestKilled:
    KILL = """
def hook(progress):
    import os, signal
    if progress.done_bytes > 200_000:
        os.kill(os.getpid(), signal.SIGKILL)
"""

    def test_leaves_nothing_that_looks_whole(self, source, output):
        assert in_subprocess(source, output, self.KILL).returncode == -signal.SIGKILL
        assert traces(output) == [".out.partial"]
        assert not (output.parent / ".out.partial" / "config.json").exists()

    def test_the_next_one_clears_up(self, source, output):
        in_subprocess(source, output, self.KILL)
        convert(source, output)
        assert traces(output) == ["out"]
        assert load_model(output)

    def test_what_was_to_be_replaced_stays(self, source, output):
        convert(source, output)
        assert in_subprocess(source, output, self.KILL).returncode == -signal.SIGKILL
        assert load_model(output).args.quantization.bits == 4

    def test_between_the_last_two_renames(self, source, output):
        convert(source, output)
        output.rename(output.parent / ".out.old")
        refuse(source, output, "exists already")  # the old one is back
        assert traces(output) == ["out"]


def test_two_at_once(source, output):
    def again(progress: Progress) -> None:
        refuse(source, output, "another conversion")

    convert(source, output, on_progress=again)
    assert load_model(output)


def test_a_folder_left_by_a_dead_process_is_not_in_use(source, output):
    partial = output.parent / ".out.partial"
    partial.mkdir()
    (partial / "lock").write_text("")
    convert(source, output)
    assert traces(output) == ["out"]


def test_the_lock_is_not_part_of_the_result(source, output):
    convert(source, output)
    assert not (output / "lock").exists()


def in_subprocess(source: Path, output: Path, preparation: str) -> subprocess.CompletedProcess[str]:
    """Convert in another process, after running `preparation` there."""
    program = f"""
import sys
import mlx_qwen3.conversion.source.chunks as chunks
from mlx_qwen3 import convert
chunks.chunk_bytes = lambda: 20_000
hook = None
{preparation}
convert(sys.argv[1], sys.argv[2], force=True, bits=8, on_progress=hook)
"""
    command = [sys.executable, "-c", program, str(source), str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)

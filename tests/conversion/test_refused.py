"""Errors of source, disk or output end in one line and exit code 1, and leave no output."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_checkpoints import DENSE, published_tensors, save_shards, write_checkpoint

import mlx_qwen3.conversion.write.staging
from mlx_qwen3.cli.app import main
from mlx_qwen3.conversion import convert

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def source(tmp_path) -> Path:
    write_checkpoint(tmp_path / "source", DENSE)
    return tmp_path / "source"


@pytest.fixture
def refused(capsys):
    """Converts from the command line; checks that it ends in one line, and returns it."""

    def run(source: Path | str, output: Path, *options: str) -> str:
        before = sorted(output.parent.iterdir())
        with pytest.raises(SystemExit) as caught:
            main(["convert", str(source), "-o", str(output), *options])
        said = capsys.readouterr()
        assert caught.value.code == 1
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert sorted(output.parent.iterdir()) == before
        return said.err

    return run


class TestSource:
    def test_cut_off(self, source, tmp_path, refused):
        os.truncate(source / "model.safetensors", 300_000)
        assert "model.safetensors is damaged or cut off" in refused(source, tmp_path / "out")

    @pytest.mark.parametrize("name", ["notes.txt", "tokenizer.json", "chat_template.jinja", "LICENSE"])
    def test_a_link_out_of_the_folder(self, source, tmp_path, refused, name):
        (tmp_path / "secret").write_text("private")
        (source / name).symlink_to(tmp_path / "secret")
        assert f"{name} is a link to " in refused(source, tmp_path / "out")

    def test_a_link_inside_the_folder_is_followed(self, source, tmp_path):
        (source / "terms.txt").write_text("terms")
        (source / "LICENSE").symlink_to("terms.txt")
        convert(source, tmp_path / "out", verify=False)
        assert (tmp_path / "out" / "LICENSE").read_text() == "terms"
        assert not (tmp_path / "out" / "LICENSE").is_symlink()

    def test_a_link_into_the_hubs_cache_is_followed(self, source, tmp_path):
        repository = tmp_path / "models--a--b"
        (repository / "blobs").mkdir(parents=True)
        (repository / "snapshots").mkdir()
        source.rename(repository / "snapshots" / "1234")
        (repository / "blobs" / "ab").write_text("terms")
        (repository / "snapshots" / "1234" / "LICENSE").symlink_to("../../blobs/ab")
        convert(repository / "snapshots" / "1234", tmp_path / "out", verify=False)
        assert (tmp_path / "out" / "LICENSE").read_text() == "terms"

    def test_a_wrong_name(self, source, tmp_path, refused):
        tensors = published_tensors(DENSE)
        tensors["model.layers.1.mlp.upproj.weight"] = tensors.pop(UP)
        save_shards(source, tensors)
        assert f"lacks {UP}" in refused(source, tmp_path / "out")

    @pytest.mark.parametrize("bits", ["4", "16"])
    def test_not_a_number(self, source, tmp_path, refused, bits):
        tensors = published_tensors(DENSE)
        tensors[UP][17, 5] = float("nan")
        save_shards(source, tensors)
        assert f"{UP} holds NaN or infinity" in refused(source, tmp_path / "out", "--bits", bits)

    def test_a_number_too_large_for_the_format_asked_for(self, source, tmp_path, refused):
        tensors = published_tensors(DENSE)
        tensors[UP][17, 5] = 1e6
        save_shards(source, tensors)
        options = ("--bits", "16", "--dtype", "float16", "--no-verify")
        assert f"{UP} holds numbers too large for float16" in refused(source, tmp_path / "out", *options)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.pt"])
    def test_a_pickle(self, source, tmp_path, refused, name):
        (source / "model.safetensors").unlink()
        (source / name).write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
        assert "pickled weights" in refused(source, tmp_path / "out")
        assert not (tmp_path / "went off").exists()

    def test_a_pickle_with_another_name(self, source, tmp_path, refused):
        (source / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
        assert "model.safetensors is damaged" in refused(source, tmp_path / "out")
        assert not (tmp_path / "went off").exists()

    def test_existing_output_without_force(self, source, tmp_path, refused):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "config.json").write_text("{}")
        assert "exists already; try --output ... or --force" in refused(source, tmp_path / "out")


class Bomb:
    """Leaves a file if it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def mounted(tmp_path) -> Iterator:
    """Mounts a small disk of its own."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a disk needs root")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


class TestDisk:
    def test_too_small_is_reported_first(self, source, mounted, refused):
        assert "has 0.0 GB free" in refused(source, mounted("size=200k") / "out")

    def test_full(self, source, mounted, refused, monkeypatch):
        monkeypatch.setattr(mlx_qwen3.conversion.write.staging, "_check_space", lambda output, size: None)
        disk = mounted("size=200k")
        assert "No space left on device" in refused(source, disk / "out", "--bits", "8")
        assert list(disk.iterdir()) == []

    def test_full_while_the_old_one_is_replaced(self, source, mounted, refused, monkeypatch):
        monkeypatch.setattr(mlx_qwen3.conversion.write.staging, "_check_space", lambda output, size: None)
        disk = mounted("size=400k")
        convert(source, disk / "out")
        before = (disk / "out" / "model.safetensors").read_bytes()
        assert "No space left" in refused(source, disk / "out", "--bits", "8", "--force")
        assert (disk / "out" / "model.safetensors").read_bytes() == before

    def test_read_only(self, source, mounted, refused):
        assert "Read-only file system" in refused(source, mounted("ro") / "out")


def test_ctrl_c(source, tmp_path):
    """A signal in the middle gives exit code 130 and no traceback, and leaves nothing."""
    program = """
import sys
import mlx_qwen3.conversion.verification.probe as probe
import mlx_qwen3.conversion.verification.streamed_model as streamed
from mlx_qwen3.cli.app import main
from mlx_qwen3.conversion import convert
product = streamed._Streamed._product
def slow(*arguments):
    print("probing", flush=True)
    import time; time.sleep(0.2)
    return product(*arguments)
streamed._Streamed._product = slow
main(["convert", *sys.argv[1:]])
"""
    command = [sys.executable, "-c", program, str(source), "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "probing\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

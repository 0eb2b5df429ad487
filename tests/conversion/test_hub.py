"""Conversions from the hub: a file is converted while the next is downloaded, and need not be kept."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import mlx.core as mx
import numpy as np
import pytest
from conversion.test_packed import AWQ
from local_hub import Hub, hub  # noqa: F401  # a fixture
from packed_files import awq, write_packed
from tiny_checkpoints import DENSE, published_tensors, read_tensors
from typer.testing import CliRunner

from mlx_qwen3.checkpoint.transfer import resumable
from mlx_qwen3.cli.app import app, main
from mlx_qwen3.conversion import Progress, convert, plan, verify
from mlx_qwen3.conversion.source.open import open_source
from mlx_qwen3.errors import CheckpointError, ModelNotFoundError

FILES = [f"model-{i + 1:05d}-of-00004.safetensors" for i in range(4)]


@pytest.fixture
def repository(hub) -> Hub:  # noqa: F811
    """Holds a checkpoint in four files, tensors in the order in which the model has them."""
    (hub.folder / "model.safetensors").unlink()
    tensors = list(published_tensors(DENSE).items())
    step = -(-len(tensors) // len(FILES))
    places = {}
    for i, file in enumerate(FILES):
        part = dict(tensors[i * step : (i + 1) * step])
        mx.save_safetensors(str(hub.folder / file), part, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (hub.folder / "tokenizer.json").unlink()
    return hub


@pytest.fixture
def expected(repository, tmp_path) -> bytes:
    """The files that a conversion of the folder writes."""
    convert(repository.folder, tmp_path / "expected", max_shard_bytes=40_000)
    return contents(tmp_path / "expected")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def weights(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


@pytest.fixture
def no_waits(monkeypatch):
    """Without the waits after a failure: a second of ours, up to eight seconds of the library."""
    monkeypatch.setattr(resumable, "PAUSE", 0.01)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


def test_the_next_file_comes_while_one_is_converted(repository, expected, tmp_path):
    seen: list[str] = []

    def wait_for_the_second(progress: Progress) -> None:
        deadline = time.monotonic() + 60
        while not seen and FILES[1] not in repository.downloads and time.monotonic() < deadline:
            time.sleep(0.01)
        seen[:] = seen or weights(repository.downloads)

    report = convert("org/tiny", tmp_path / "out", max_shard_bytes=40_000, on_progress=wait_for_the_second)
    assert seen == FILES[:2]  # the first is being converted, and nothing beyond the second was asked for
    assert weights(repository.downloads) == FILES
    assert contents(tmp_path / "out") == expected
    assert report.verification == verify(tmp_path / "out", "org/tiny")
    assert weights(repository.downloads) == FILES  # they were kept


def test_a_reader_of_a_download_is_released_when_it_is_stopped(repository, monkeypatch):
    import mlx_qwen3.conversion.source.hub as hub_sources

    stalled = threading.Event()
    monkeypatch.setattr(hub_sources, "download_file", lambda *_, **__: stalled.wait(100))
    monkeypatch.setattr(hub_sources, "CLOSE_SECONDS", 0.1)
    original = open_source("org/tiny")
    with ThreadPoolExecutor(1) as pool:  # whose threads an exit waits for
        waiting = pool.submit(next(iter(original.tensors.values())).read, 0, 1)
        original.close()
        with pytest.raises(CheckpointError, match="was stopped"):
            waiting.result(timeout=60)
    stalled.set()


def test_a_plan_downloads_no_weights(repository, tmp_path):
    assert plan("org/tiny").total_size == plan(repository.folder).total_size
    done = CliRunner().invoke(app, ["convert", "org/tiny", "-o", str(tmp_path / "out"), "--dry-run"])
    assert done.exit_code == 0
    assert "nothing was written" in done.output
    assert weights(repository.downloads) == []


def test_cached_files_are_used(repository, expected, tmp_path, monkeypatch):
    convert("org/tiny", tmp_path / "out")
    repository.downloads.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    convert("org/tiny", tmp_path / "again", max_shard_bytes=40_000)
    assert contents(tmp_path / "again") == expected
    assert repository.downloads == []


def test_files_need_not_be_kept(repository, expected, tmp_path):
    most = 0

    def look(progress: Progress) -> None:
        nonlocal most
        most = max(most, len(list((tmp_path / ".out.source").glob("*.safetensors"))))

    options = {"max_shard_bytes": 40_000, "keep_source": False}
    report = convert("org/tiny", tmp_path / "out", on_progress=look, **options)
    assert 0 < most <= 3
    assert contents(tmp_path / "out") == expected
    assert not (tmp_path / ".out.source").exists()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert report.verification is not None
    assert report.verification.tensors
    assert report.verification.probe is None
    assert "predictions were not compared" in (tmp_path / "out" / "README.md").read_text()
    assert read_tensors(tmp_path / "out")


@pytest.mark.parametrize("keep_source", [True, False])
def test_a_download_that_breaks_off(repository, expected, tmp_path, no_waits, keep_source):
    repository.broken = {FILES[2]}
    options = {"max_shard_bytes": 40_000, "keep_source": keep_source}
    with pytest.raises(ModelNotFoundError, match="downloading org/tiny failed") as caught:
        convert("org/tiny", tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial" / "config.json").exists()
    repository.broken.clear()
    repository.downloads.clear()
    convert("org/tiny", tmp_path / "out", **options)
    assert contents(tmp_path / "out") == expected
    assert FILES[0] not in repository.downloads
    assert {path.name for path in tmp_path.iterdir()} == {"out", "expected", "cache", "repository"}


def test_a_broken_download_is_one_line_of_the_command(repository, tmp_path, no_waits, capfd):
    repository.broken = {FILES[0]}
    with pytest.raises(SystemExit) as caught:
        main(["convert", "org/tiny", "-o", str(tmp_path / "out")])
    assert caught.value.code == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: downloading org/tiny failed")
    assert said.err.count("\n") == 1


def test_ctrl_c_leaves_nothing(repository, tmp_path):
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("org/tiny", tmp_path / "out", keep_source=False, on_progress=interrupt)
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_packed_weights_are_streamed_too(hub, tmp_path):  # noqa: F811
    """The parts of one matrix are in different files; each file is removed after its use."""
    (hub.folder / "model.safetensors").unlink()
    meant = write_packed(hub.folder, DENSE, AWQ, awq(), shards=3)
    convert("org/tiny", tmp_path / "out", bits=None, dtype="float32", keep_source=False)
    for name, value in read_tensors(tmp_path / "out").items():
        np.testing.assert_allclose(np.array(value), np.array(meant[name]), atol=1e-6, err_msg=name)
    assert not list(tmp_path.glob("**/cache/**/*.safetensors"))
    assert sorted(weights(hub.downloads)) == sorted(file.name for file in hub.folder.glob("*.safetensors"))

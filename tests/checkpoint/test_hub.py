"""Downloading, against a small hub of our own: what is asked for, what is kept, what is said."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
from local_hub import hub  # noqa: F401  # a fixture
from tiny_checkpoints import DENSE, logits, write_checkpoint

from mlx_qwen3.checkpoint import load_model, resolve
from mlx_qwen3.checkpoint.hub import download
from mlx_qwen3.checkpoint.transfer.transfer import Transfer
from mlx_qwen3.errors import CheckpointError, LoadCancelledError, ModelNotFoundError


def test_downloads_what_a_model_needs_and_nothing_else(hub, capfd):  # noqa: F811
    steps: list[tuple[int, int]] = []
    folder = resolve("org/tiny", lambda done, total: steps.append((done, total)))
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert {file.name for file in folder.iterdir()} == hub.fetched == wanted
    assert max(done for done, _ in steps) == sum((folder / name).stat().st_size for name in wanted)
    assert capfd.readouterr() == ("", "")


def test_a_downloaded_model_loads_without_the_hub(hub, monkeypatch):  # noqa: F811
    expected = logits(load_model("org/tiny"))
    hub.fetched.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert (logits(load_model("org/tiny")) == expected).all()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert (logits(load_model("org/tiny")) == expected).all()
    assert hub.fetched == set()


def test_a_half_downloaded_model_is_no_model(hub, monkeypatch):  # noqa: F811
    folder = resolve("org/tiny")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="only partly downloaded"):
        resolve("org/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert (resolve("org/tiny") / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/gated", "org/gated is gated: accept its terms on its page, then log in"),
        ("org/nothing", "no repository org/nothing on the hub: check its name"),
    ],
)
def test_what_is_said_of_a_repository_that_is_out_of_reach(hub, name, message):  # noqa: F811
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_typo_is_suggested(hub, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "models" / "qwen-14b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"did you mean qwen-14b\?"):
        resolve("models/qwen-14")


def test_offline_without_a_cache(hub, monkeypatch):  # noqa: F811
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="not downloaded and the hub cannot be reached"):
        resolve("14b")


def part_of(hub, tmp_path):  # noqa: F811
    """What has arrived of the weights."""
    return next(iter(tmp_path.glob("cache/**/*.partial")), None)


def test_a_cancelled_download_ends_at_once_and_goes_on_where_it_stopped(hub, tmp_path):  # noqa: F811
    hub.pause, cancel = 0.02, threading.Event()
    steps: list[tuple[int, int]] = []
    threads = set()

    def on_download(done, total):
        threads.add(threading.current_thread())
        steps.append((done, total))
        if done > 60_000:
            cancel.set()

    with pytest.raises(LoadCancelledError, match="goes on where it stopped"):
        resolve("org/tiny", on_download, cancel=cancel)
    assert threads == {threading.current_thread()}, "whoever waits is told, and nobody else"
    whole = (hub.folder / "model.safetensors").read_bytes()
    part = part_of(hub, tmp_path).read_bytes()
    assert part
    assert whole.startswith(part)
    assert len(part) < len(whole)

    hub.pause = 0
    steps.clear()
    folder = resolve("org/tiny", lambda done, total: steps.append((done, total)))
    assert (folder / "model.safetensors").read_bytes() == whole
    assert part_of(hub, tmp_path) is None
    assert hub.ranges
    assert hub.ranges[-1] >= len(part)
    sizes = sum(file.stat().st_size for file in folder.iterdir())
    assert steps[-1] == (sizes, sizes)
    assert {total for _, total in steps} == {sizes}, "the total is known from the first on"


def test_a_connection_that_breaks_is_taken_up_again(hub, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Transfer, "wait", lambda self, seconds: None)
    hub.broken.add("model.safetensors")
    with pytest.raises(ModelNotFoundError, match="run the same command again to resume"):
        download("org/tiny")
    assert len(hub.ranges) >= 3, "each try goes on where the last one stopped"
    assert hub.ranges == sorted(hub.ranges)
    hub.broken.clear()
    folder = download("org/tiny")
    assert (folder / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()


def test_a_part_that_is_damaged_is_not_used(hub, tmp_path):  # noqa: F811
    hub.broken.add("model.safetensors")
    cancel = threading.Event()
    with pytest.raises(LoadCancelledError):
        resolve("org/tiny", lambda done, total: cancel.set() if done > 600_000 else None, cancel=cancel)
    part = part_of(hub, tmp_path)
    part.write_bytes(b"x" * part.stat().st_size)
    hub.broken.clear()
    with pytest.raises(CheckpointError, match="arrived damaged and was deleted: download it again"):
        resolve("org/tiny")
    folder = resolve("org/tiny")
    assert (folder / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()


def test_a_disk_that_is_too_small_is_said_before_the_download(hub, monkeypatch):  # noqa: F811
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"org/tiny needs 0\.0 GB more on the disk"):
        resolve("org/tiny")
    assert "model.safetensors" not in hub.fetched


def test_another_folder_for_downloads(hub, tmp_path):  # noqa: F811
    mine = tmp_path / "mine"
    assert mine in resolve("org/tiny", models_dir=mine).parents
    hub.downloads.clear()
    assert mine in resolve("org/tiny", models_dir=mine).parents
    assert hub.downloads == []
    write_checkpoint(mine / "org" / "other", DENSE)
    assert resolve("org/other", models_dir=mine) == mine / "org" / "other", "a plain folder of that name"


def test_a_revision_of_its_own(hub, tmp_path):  # noqa: F811
    assert resolve("org/tiny", revision="v1") == resolve("org/tiny@v1")
    for name in ("demo", str(tmp_path)):
        with pytest.raises(ModelNotFoundError, match="revision can only be given for a model of the hub"):
            resolve(name, revision="v1")
    with pytest.raises(ModelNotFoundError, match="names a revision already"):
        resolve("org/tiny@v2", revision="v1")

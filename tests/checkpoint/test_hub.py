"""Downloading, against a small hub of our own: what is asked for, what is kept, what is said."""

from __future__ import annotations

import huggingface_hub.constants
import pytest
from local_hub import hub  # noqa: F401  # a fixture
from tiny_checkpoints import logits

from mlx_qwen3.checkpoint import load_model, resolve
from mlx_qwen3.errors import ModelNotFoundError


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

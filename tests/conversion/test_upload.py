"""Uploads: what is sent, the card, and what the hub's refusals become. The hub itself is a stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint
from typer.testing import CliRunner

from mlx_qwen3.cli.app import app
from mlx_qwen3.conversion import convert
from mlx_qwen3.conversion.upload import plan_upload, upload
from mlx_qwen3.errors import CheckpointError, ConversionError


class FakeHub:
    """Notes the calls of HfApi."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.card = ""
        self.error: Exception | None = None

    def create_repo(self, name: str, **options: Any) -> str:
        self.calls.append(("create_repo", {"name": name, **options}))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("upload_folder", options))

    def upload_file(self, *, path_or_fileobj: Path, **options: Any) -> None:
        self.card = path_or_fileobj.read_text()
        self.calls.append(("upload_file", options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = write_byte_tokenizer(tmp_path / "source")
    write_checkpoint(source, DENSE)
    (source / "LICENSE").write_text("                Apache License\n         Version 2.0, January 2004\n")
    convert(source, tmp_path / "small")
    return tmp_path / "small"


def test_a_new_repository_is_private_and_gets_what_the_checkpoint_needs(folder: Path, hub: FakeHub) -> None:
    (folder / "secret.env").write_text("password")
    (folder / ".cache").mkdir()
    assert upload(plan_upload(folder, "me/small")) == "https://huggingface.co/me/small"
    (_, created), (_, sent), (_, card) = hub.calls
    assert created == {"name": "me/small", "private": True, "exist_ok": True}
    assert sorted(sent["allow_patterns"]) == sorted(
        [
            *("LICENSE", "SHA256SUMS", "chat_template.jinja", "config.json", "model.safetensors"),
            *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"),
        ]
    )
    assert card["path_in_repo"] == "README.md"
    front = hub.card.split("---")[1]
    assert "license: apache-2.0" in front
    assert "library_name: mlx" in front
    assert "4 bits, groups of 64" in hub.card
    assert "relative error of the weights" in hub.card
    assert hub.card.rstrip().endswith("Run it: `mlx-qwen3 chat --model me/small`")
    assert hub.card.count("Run it:") == 1


def test_a_dry_run_sends_nothing(folder: Path, hub: FakeHub) -> None:
    result = CliRunner().invoke(app, ["upload", str(folder), "me/small", "--dry-run"])
    assert result.exit_code == 0
    assert "9 files" in result.stdout
    assert "nothing was sent" in result.stdout
    assert "mlx-qwen3 chat --model me/small" in result.stdout
    assert hub.calls == []


def test_the_command_and_convert_upload(folder: Path, hub: FakeHub, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["upload", str(folder), "hf.co/me/small", "--public"])
    assert result.exit_code == 0
    assert hub.calls[0][1] == {"name": "me/small", "private": False, "exist_ok": True}
    hub.calls.clear()
    arguments = ["convert", str(tmp_path / "source"), "-o", str(tmp_path / "again"), "--upload", "me/again"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert hub.calls[0][1] == {"name": "me/again", "private": True, "exist_ok": True}


@pytest.mark.parametrize("name", ["small", "me/small/x", "me/small@v1", "../x", "", "me/ small"])
def test_what_is_no_name(folder: Path, name: str) -> None:
    with pytest.raises(ConversionError, match="is not a repository's name"):
        plan_upload(folder, name)


def test_what_is_not_sent(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConversionError, match=r"tokenizer_config.json has changed since it was written"):
        plan_upload(folder, "me/small")
    (folder / "SHA256SUMS").unlink()
    assert "SHA256SUMS" not in plan_upload(folder, "me/small").files
    (tmp_path / "private.json").write_text("{}")
    (folder / "more.json").symlink_to(tmp_path / "private.json")
    with pytest.raises(ConversionError, match=r"more.json is a link to .*private.json, outside"):
        plan_upload(folder, "me/small")
    (folder / "more.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model"):
        plan_upload(folder, "me/small")


def test_refusals_of_the_hub_are_one_line(folder: Path, hub: FakeHub) -> None:
    plan = plan_upload(folder, "me/small")
    hub.error = huggingface_hub.errors.LocalTokenNotFoundError("no token\nat all")
    with pytest.raises(ConversionError, match="log in with `hf auth login`, with a token that may write"):
        upload(plan)
    hub.error = ConnectionError("reset\nby peer")
    with pytest.raises(ConversionError, match="failed: reset by peer; run the same command again"):
        upload(plan)

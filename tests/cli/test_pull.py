"""`mlx-qwen3 pull`, `rm` and what `models` says of the hub's cache, with a hub of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_hub import Hub, hub  # noqa: F401  # a fixture
from typer.testing import CliRunner

from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.hub import pull as module
from mlx_qwen3.cli.output import program
from mlx_qwen3.errors import ModelNotFoundError


def run(*arguments: str, stdin: str = "") -> str:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_pull_models_rm(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    assert f"chat with it: {program()} chat --model org/tiny\n" in run("pull", "org/tiny")
    assert "model.safetensors" in hub.fetched
    hub.downloads.clear()
    run("pull", "org/tiny")
    assert hub.downloads == [], "what is there is not downloaded again"
    assert "org/tiny" in run("models")
    monkeypatch.setattr(module, "ask", lambda _: "no")
    assert "nothing was deleted" in run("rm", "org/tiny")
    assert "org/tiny" in run("models")
    assert "deleted org/tiny" in run("rm", "org/tiny", "--yes")
    assert "org/tiny" not in run("models")
    with pytest.raises(ModelNotFoundError, match="org/tiny is not in the hub's cache"):
        run("rm", "org/tiny", "--yes")


def test_a_folder_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelNotFoundError, match="delete the folder yourself"):
        run("rm", str(tmp_path / "model"), "--yes")
    assert (tmp_path / "model").is_dir()
    assert "is on this machine" in run("pull", "demo")

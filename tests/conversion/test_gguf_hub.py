"""GGUF files on the hub: a file is named after its repository, and is downloaded with its other parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversion.test_gguf import WIDE, tokenizer  # noqa: F401  # a fixture
from gguf_files import Kind, gguf_weights, write_gguf
from local_hub import Hub, hub  # noqa: F401  # a fixture

from mlx_qwen3 import load_model
from mlx_qwen3.cli.app import main
from mlx_qwen3.conversion import convert, verify
from mlx_qwen3.errors import ModelNotFoundError


@pytest.fixture
def repository(hub, tokenizer) -> Hub:  # noqa: F811
    """Holds one complete file and one in three parts, and nothing else."""
    for file in hub.folder.iterdir():
        file.unlink()
    write_gguf(hub.folder / "tiny-Q8_0.gguf", WIDE, gguf_weights(WIDE), Kind.Q8_0, tokenizer)
    write_gguf(hub.folder / "tiny-F16.gguf", WIDE, gguf_weights(WIDE), Kind.F16, tokenizer, 5)
    return hub


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


@pytest.mark.parametrize("name", ["tiny-Q8_0.gguf", "tiny-F16-00002-of-00003.gguf"])
def test_a_file_of_a_repository_is_converted_like_a_local_one(repository, tmp_path, name):
    convert(repository.folder / name, tmp_path / "expected")
    convert(f"org/tiny/{name}", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    fetched = {file for file in repository.downloads if file.endswith(".gguf")}
    assert fetched == ({name} if "Q8" in name else {f"tiny-F16-0000{i}-of-00003.gguf" for i in (1, 2, 3)})
    assert verify(tmp_path / "out", f"org/tiny/{name}").probe is not None


def test_the_download_need_not_be_kept(repository, tmp_path):
    convert("org/tiny/tiny-Q8_0.gguf", tmp_path / "out", keep_source=False)
    assert list(load_model(tmp_path / "out").parameters())
    assert not list(tmp_path.rglob("cache/**/*.gguf"))
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["convert", "org/tiny/tiny-Q4.gguf"],
            "no file tiny-Q4.gguf in org/tiny on the hub; its GGUF files: ",
        ),
        (["convert", "org/other/tiny.gguf"], "no file org/other/tiny.gguf here; no repository org/other"),
        (
            ["convert", "org/tiny"],
            "org/tiny holds GGUF files, which must be converted first: mlx-qwen3 convert org/",
        ),
        (
            ["generate", "-p", "hi", "--model", "org/tiny"],
            "mlx-qwen3 convert org/tiny/tiny-F16-00001-of-00003.gguf",
        ),
    ],
)
def test_what_is_missing_is_named_in_one_line(repository, tmp_path, monkeypatch, capsys, command, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(command)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_config_beside_gguf_files_makes_it_no_checkpoint(repository, tmp_path):
    (repository.folder / "config.json").write_text("{}")
    for use in (lambda: convert("org/tiny", tmp_path / "out"), lambda: load_model("org/tiny")):
        with pytest.raises(ModelNotFoundError, match="holds GGUF files"):
            use()


def test_a_repository_of_neither_kind_has_no_config(repository):
    for file in repository.folder.iterdir():
        file.unlink()
    with pytest.raises(ModelNotFoundError, match="none"):
        convert("org/tiny/tiny.gguf", "out")

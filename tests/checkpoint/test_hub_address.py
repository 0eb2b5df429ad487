"""Names of repositories: revisions and pasted addresses."""

from __future__ import annotations

import re

import pytest
from local_hub import COMMIT, Hub, hub  # noqa: F401  # a fixture
from tiny_checkpoints import logits

import mlx_qwen3.checkpoint.hub as hub_module
from mlx_qwen3 import load_model
from mlx_qwen3.checkpoint.hub_address import GGUF_ON_HUB, HUB_ID, from_address, split_revision
from mlx_qwen3.checkpoint.locate import locate
from mlx_qwen3.errors import ModelNotFoundError

ADDRESSES = {
    "https://huggingface.co/Qwen/Qwen3-14B": "Qwen/Qwen3-14B",
    "http://www.huggingface.co/Qwen/Qwen3-14B/": "Qwen/Qwen3-14B",
    "hf.co/Qwen/Qwen3-14B@v1": "Qwen/Qwen3-14B@v1",
    "hf.co/Qwen/Qwen3-14B?library=mlx#top": "Qwen/Qwen3-14B",
    " huggingface.co/Qwen/Qwen3-14B ": "Qwen/Qwen3-14B",
    "https://huggingface.co/Qwen/Qwen3-14B/tree/main": "Qwen/Qwen3-14B",
    "https://huggingface.co/Qwen/Qwen3-14B/tree/v1.0": "Qwen/Qwen3-14B@v1.0",
    "https://huggingface.co/Qwen/Qwen3-14B/tree/refs/pr/3": "Qwen/Qwen3-14B@refs/pr/3",
    "https://huggingface.co/a/b/blob/main/x.gguf": "a/b/x.gguf",
    "https://huggingface.co/a/b/resolve/abc123/x.gguf?download=true": "a/b@abc123/x.gguf",
    "https://huggingface.co/a/b/blob/main/config.json": "a/b",
    "Qwen/Qwen3-14B": "Qwen/Qwen3-14B",
    "https://example.com/Qwen/Qwen3-14B": "https://example.com/Qwen/Qwen3-14B",
    "huggingface.co/datasets/a/b": "huggingface.co/datasets/a/b",
    "14b": "14b",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str) -> None:
    assert from_address(address) == ADDRESSES[address]


def test_names_and_revisions() -> None:
    assert split_revision("a/b") == ("a/b", None)
    assert split_revision("a/b@refs/pr/3") == ("a/b", "refs/pr/3")
    assert HUB_ID.fullmatch("a/b@v1")
    assert not HUB_ID.fullmatch("a/b@")
    match = GGUF_ON_HUB.fullmatch("a/b@v1/x.gguf")
    assert match is not None
    assert match.groups() == ("a/b", "v1", "x.gguf")
    assert locate("https://hf.co/a/b/tree/v1") == "a/b@v1"


def test_a_revision_is_what_is_downloaded(hub: Hub) -> None:  # noqa: F811
    model = load_model(f"org/tiny@{COMMIT}")
    assert logits(model).shape[1] == 300
    assert hub_module.downloaded(f"org/tiny@{COMMIT}") is not None
    assert hub_module.downloaded("org/tiny@other") is None


def test_a_revision_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub.errors import RevisionNotFoundError

    def fail(*args: object, **options: object) -> None:
        assert options["revision"] == "v9"
        response = httpx.Response(404, request=httpx.Request("GET", "http://hub"))
        raise RevisionNotFoundError("Revision not found", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match=re.escape("org/tiny has no revision v9 on the hub")):
        load_model("org/tiny@v9")

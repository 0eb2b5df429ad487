"""Several models: names, loading on demand, unloading, and what cannot be a path."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from embedding_models import write_reranker
from live_server import LiveServer, live_server

from mlx_qwen3 import Engine
from mlx_qwen3.checkpoint.locate import PACKAGED
from mlx_qwen3.errors import ConfigError, InsufficientMemoryError
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.models import ModelPool, served_name


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranker(tmp_path_factory.mktemp("models") / "judge")


@pytest.fixture
def two(reranker: Path) -> Iterator[LiveServer]:
    """A server of two models, of which one at a time is in memory."""
    config = ServerConfig(models=("demo", str(reranker)), most_models=1, prepares=False)
    with live_server(config) as running:
        yield running


def loaded(server: LiveServer) -> list[str]:
    return [model.name for model in server.service.models if model.is_loaded]


def say(server: LiveServer, **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **fields}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_models_are_loaded_on_demand_and_make_room(two: LiveServer) -> None:
    assert loaded(two) == ["demo"]
    body = {"model": "judge", "query": "sums", "documents": ["hello", {"text": "2+2?"}, "x"], "top_n": 2}
    answer = httpx.post(f"{two.url}/v1/rerank", json={**body, "return_documents": True}, timeout=60).json()
    assert loaded(two) == ["judge"]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["results"][0]["document"]["text"] in ("hello", "2+2?", "x")
    assert say(two).json()["model"] == "demo"
    assert loaded(two) == ["demo"]
    names = [model["id"] for model in httpx.get(f"{two.url}/v1/models").json()["data"]]
    assert names == ["demo", "judge"]  # a folder is known by its name: no path of this machine


def test_a_model_nobody_uses_is_unloaded_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_qwen3.server.app.LOOK_AFTER_SECONDS", 0.05)
    with live_server(ServerConfig(unload_after=0.1)) as server:
        deadline = time.monotonic() + 60
        while loaded(server):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert say(server).status_code == 200
    with live_server(ServerConfig(unload_after=0.1, pinned=("demo",))) as server:
        time.sleep(0.5)
        assert loaded(server) == ["demo"]


def test_a_model_that_does_not_fit_makes_room_or_is_refused(reranker: Path) -> None:
    opened: list[str] = []

    def open_engine(source: str, **options: Any) -> Engine:
        """An engine for a machine that has room for one model."""
        if any(model.is_loaded for model in pools[0]):
            raise InsufficientMemoryError(f"{source} does not fit")
        opened.append(source)
        return Engine(source, **options)

    config = ServerConfig(models=("demo", str(reranker)), prepares=False)
    pools: list[ModelPool] = []
    with live_server(
        config, lambda source, **options: open_engine(source, **options), pools.append
    ) as server:
        assert say(server, model="judge").status_code == 200
        assert opened == ["demo", str(reranker)]
    pinned = ServerConfig(models=("demo", str(reranker)), pinned=("demo",), prepares=False)
    pools.clear()
    with live_server(
        pinned, lambda source, **options: open_engine(source, **options), pools.append
    ) as server:
        answer = say(server, model="judge")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "insufficient_memory")
        assert "retry-after" in answer.headers


PATHS = ["../demo", "/etc/passwd", "./demo", "~", "file:///etc/passwd", "demo/../demo", "demo\n", "\x00"]


@pytest.mark.parametrize("name", [*PATHS, "Qwen/Qwen3-14B", "http://x/y", "14b"])
def test_no_name_becomes_a_path_or_a_download(name: str) -> None:
    def open_engine(source: str, **options: Any) -> Engine:
        pytest.fail(f"loads {source}")

    with pytest.raises(RequestError) as caught:
        ModelPool(ServerConfig(), open_engine).find(name)
    assert caught.value.status == 404
    assert "\n" not in caught.value.message


def test_names_of_a_model(tmp_path: Path) -> None:
    pool = ModelPool(ServerConfig(models=("14b", "org/Fine-Tune", "demo"), aliases={"Sonnet": "demo"}))
    own = ("14b", "14B", "qwen3-14b", "qwen3:14b", "Qwen/Qwen3-14B-MLX-4bit", "", None)
    built_in = ("claude-opus-4-1", "gpt-5-mini", "gpt-4o", "o3", "o4-mini", "codex-mini-latest")
    for name in (*own, *built_in, "chatgpt-4o-latest"):
        assert pool.find(name).name == "14b", name
    assert pool.find("fine-tune").name == pool.find("org/fine-tune").name == "org/Fine-Tune"
    assert pool.find("sonnet").name == "demo"
    assert served_name(str(tmp_path)) == tmp_path.name
    with pytest.raises(ConfigError, match="two models"):
        ModelPool(ServerConfig(models=("demo", "demo")))
    with pytest.raises(ConfigError, match="alias"):
        ModelPool(ServerConfig(aliases={"x": "y"}))


def write_adapter(folder: Path) -> Path:
    """An adapter of the demo model that makes it say something else."""
    import mlx.core as mx

    config = json.loads((PACKAGED["demo"] / "config.json").read_text())
    outputs = config["num_attention_heads"] * config["head_dim"]
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    folder.mkdir()
    tensors = {
        f"{prefix}.lora_A.weight": mx.random.normal((2, config["hidden_size"]), key=mx.random.key(1)),
        f"{prefix}.lora_B.weight": mx.random.normal((outputs, 2), key=mx.random.key(2)),
    }
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), tensors)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    return folder


def test_an_adapter_is_a_model_that_shares_the_weights(tmp_path: Path) -> None:
    opened: list[Engine] = []

    def open_engine(source: str, **options: Any) -> Engine:
        opened.append(Engine(source, **options))
        return opened[-1]

    folders = {"polite": str(write_adapter(tmp_path / "polite")), "gone": str(tmp_path / "gone")}
    config = ServerConfig(adapters=folders, prepares=False)

    def answer(model: str) -> str:
        reply = say(server, model=model, temperature=0, max_tokens=8).json()
        assert reply["model"] == model.split(":")[-1]
        return str(reply["choices"][0]["message"]["content"])

    with live_server(config, open_engine) as server:
        names = [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]]
        assert names == ["demo", "polite", "gone"]
        plain, polite = answer("demo"), answer("polite")
        assert plain != polite == answer("demo:polite")
        assert answer("demo") == plain  # what was prefilled with the adapter was not taken
        refused = say(server, model="gone")
        assert refused.status_code == 503
        assert str(tmp_path) not in refused.text
        assert answer("polite") == polite
        assert len(opened) == 1
        [engine] = opened
        assert engine.adapters == ("polite",)
    with pytest.raises(ConfigError, match="two models"):
        ModelPool(ServerConfig(adapters={"demo": str(tmp_path)}))


def test_texts_are_logged_only_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    for wanted in (False, True):
        caplog.clear()
        with (
            caplog.at_level("INFO", "mlx_qwen3.server"),
            live_server(ServerConfig(log_prompts=wanted)) as server,
        ):
            say(server, messages=[{"role": "user", "content": "my secret"}])
        assert ("my secret" in caplog.text) == wanted
        assert "POST /v1/chat/completions 200" in caplog.text


def test_a_model_that_cannot_be_loaded_tells_clients_no_paths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    with live_server(ServerConfig(models=("demo", str(tmp_path / "broken")))) as server:
        answer = say(server, model="broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
    assert str(tmp_path) not in answer.text
    assert str(tmp_path) in caplog.text

"""Several adapters on one engine: each session and request has its own, and the text it has alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, IDS, MOE, write_checkpoint

from mlx_qwen3 import Engine, load_model
from mlx_qwen3.adapters import adapted_modules, add_adapter, read_adapter
from mlx_qwen3.engine.batch import BatchRequest
from mlx_qwen3.errors import CheckpointError, EngineError
from mlx_qwen3.model.compiled_step import CompiledStep
from mlx_qwen3.model.prepare import compile_for_gpu

GREEDY = {"max_tokens": 12, "temperature": 0}
PROMPTS = ["hi", "what is it", "once upon a time there was", "x" * 90]
ATTENTION = {"self_attn.q_proj": (128, 128), "self_attn.v_proj": (64, 128)}
MLP = {"mlp.up_proj": (256, 128), "mlp.down_proj": (128, 256)}


def write_adapter(folder: Path, seed: int, places: dict[str, tuple[int, int]], dora: bool = False) -> Path:
    """An adapter as PEFT saves it, with random numbers."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(DENSE["num_hidden_layers"]):
        for path, (outputs, inputs) in places.items():
            prefix = f"base_model.model.model.layers.{layer}.{path}"
            tensors[f"{prefix}.lora_A.weight"] = mx.array(random.normal(0, 0.2, (4, inputs)), mx.float32)
            tensors[f"{prefix}.lora_B.weight"] = mx.array(random.normal(0, 0.2, (outputs, 4)), mx.float32)
            if dora:
                magnitude = mx.array(random.uniform(1, 3, outputs), mx.float32)
                tensors[f"{prefix}.lora_magnitude_vector"] = magnitude
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), tensors)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": dora, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def write_all(tmp_path: Path, raw: dict[str, Any] = DENSE) -> tuple[Path, dict[str, Path]]:
    write_byte_tokenizer(tmp_path / "model")
    write_checkpoint(tmp_path / "model", raw)
    mlp = MLP if raw is DENSE else {}
    return tmp_path / "model", {
        "one": write_adapter(tmp_path / "one", 1, ATTENTION),
        "two": write_adapter(tmp_path / "two", 2, ATTENTION | mlp),
        "three": write_adapter(tmp_path / "three", 3, mlp or ATTENTION, dora=True),
    }


def alone(folder: Path, adapter: Path | None) -> list[str]:
    with Engine(folder, adapter=adapter, draft_model=None) as engine:
        return [engine.complete(prompt, sampling=GREEDY).text for prompt in PROMPTS]


@pytest.mark.parametrize("raw", [DENSE, MOE], ids=["dense", "moe"])
def test_each_request_of_a_batch_has_the_text_of_its_adapter_alone(tmp_path: Path, raw: Any) -> None:
    folder, folders = write_all(tmp_path, raw)
    expected = {name: alone(folder, path) for name, path in [("none", None), *folders.items()]}
    assert len({tuple(texts) for texts in expected.values()}) == 4
    with Engine(folder, adapters=folders, draft_model="text") as engine:
        assert engine.adapters == ("one", "two", "three")
        wanted = [(name, number) for number in range(len(PROMPTS)) for name in expected]
        requests = [
            BatchRequest(prompt=PROMPTS[number], id=(name, number), adapter=name) for name, number in wanted
        ]
        results = list(engine.generate_batch(requests, sampling=GREEDY))
        assert {result.id: result.text for result in results} == {
            (name, number): expected[name][number] for name, number in wanted
        }
        for name, number in reversed(wanted):  # one after the other, drafts and copied prefixes included
            assert (
                engine.complete(PROMPTS[number], sampling=GREEDY, adapter=name).text
                == (expected[name][number])
            )


def test_a_session_changes_its_adapter_and_its_caches_with_it(tmp_path: Path) -> None:
    folder, folders = write_all(tmp_path)
    answers = {}
    for name in ("one", "two", "none"):
        with Engine(folder, adapter=folders.get(name), draft_model=None) as engine:
            answers[name] = engine.session(thinking=False, sampling=GREEDY).ask("hello there").answer
    assert len(set(answers.values())) == 3
    with Engine(folder, adapter="one", adapters=folders, draft_model=None) as engine:
        session = engine.session(thinking=False, sampling=GREEDY)
        for name in ("one", "two", "none", "one", "two"):
            session.clear()
            session.adapter = name
            assert (session.adapter, session.ask("hello there").answer) == (name, answers[name])
        session.save_cache(tmp_path / "cache.safetensors")
        other = engine.session(thinking=False, adapter="two")
        other.load_cache(tmp_path / "cache.safetensors")
        assert other.tokens
        with pytest.raises(Exception, match="another model"):
            engine.session(adapter="one").load_cache(tmp_path / "cache.safetensors")
        assert session.branch().adapter == "two"
        assert engine.session().adapter == "one"
        session.adapter = None
        assert session.adapter == "one"


def test_adapters_come_and_the_model_goes(tmp_path: Path) -> None:
    folder, folders = write_all(tmp_path)
    with Engine(folder, draft_model=None, unload_after=60) as engine:
        plain = engine.complete("hi", sampling=GREEDY).text
        assert engine.load_adapter(folders["one"]) == "one"
        assert engine.load_adapter(folders["two"], "other") == "other"
        texts = [engine.complete("hi", sampling=GREEDY, adapter=name).text for name in ("one", "other")]
        by_adapter = [engine.embed(["hi"], adapter=name)[0] for name in ("one", "none", "one")]
        np.testing.assert_array_equal(by_adapter[0], by_adapter[2])
        assert np.abs(by_adapter[0] - by_adapter[1]).max() > 1e-3
        assert texts == [alone(folder, folders["one"])[0], alone(folder, folders["two"])[0]]
        assert engine.unload()
        assert engine.complete("hi", sampling=GREEDY, adapter="other").text == texts[1]
        assert engine.complete("hi", sampling=GREEDY).text == plain
        with pytest.raises(EngineError, match="there is an adapter one already"):
            engine.load_adapter(folders["three"], "one")
        (folders["three"] / "adapter_config.json").write_text("{")
        with pytest.raises(CheckpointError, match="not valid JSON"):
            engine.load_adapter(folders["three"])
        assert engine.adapters == ("one", "other")
    assert engine.options["adapters"] == {"one": folders["one"], "other": folders["two"]}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adapters": {"none": "x"}}, "name must be 1 to 64 characters and not none"),
        ({"adapters": {"a\nb": "x"}}, "name must be 1 to 64 characters"),
        ({"adapters": {"": "x"}}, "name must be 1 to 64 characters"),
        ({"adapters": {"a": 3}}, "the adapter a must be a folder, not 3"),
        ({"adapters": ["a"]}, "must be a mapping of names to folders"),
        ({"adapter": 3}, "adapter must be a folder"),
    ],
)
def test_adapters_that_cannot_be(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(EngineError, match=problem):
        Engine("demo", **options)


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    folder, folders = write_all(tmp_path)
    with Engine(folder, adapters=folders, draft_model=None) as engine:
        problem = r"there is no adapter 'four'; there are: one, two, three, none"
        with pytest.raises(EngineError, match=problem):
            engine.session(adapter="four")
        with pytest.raises(EngineError, match=problem):
            engine.complete("hi", adapter="four")
        session = engine.session(adapter="two")
        with pytest.raises(EngineError, match=problem):
            session.adapter = "four"
        assert session.adapter == "two"
        [bad, good] = sorted(
            engine.generate_batch([BatchRequest(prompt="a", adapter="four"), "b"], sampling=GREEDY),
            key=lambda result: result.index,
        )
        assert "there is no adapter 'four'" in bad.error
        assert good.error is None


@pytest.mark.parametrize("raw", [DENSE, MOE], ids=["dense", "moe"])
def test_the_model_of_a_gpu_switches_and_copies_no_weights(tmp_path: Path, raw: Any) -> None:
    """What is fused and compiled for a GPU computes the same after any number of switches."""
    folder, folders = write_all(tmp_path, raw)
    expected = {None: load_model(folder)}
    for name, path in folders.items():
        expected[name] = load_model(folder)
        add_adapter(expected[name], read_adapter(path), "the model")
    model = load_model(folder)
    model._make_step = None
    compile_for_gpu(model)
    own = model.layers[0].self_attn.q_proj
    for name, path in folders.items():
        model.know_adapter(name, adapted_modules(model, read_adapter(path), "the model"))
    for name in (None, "one", "two", None, "three", "one", None):
        model.use_adapter(name)
        caches = [each.make_cache() for each in (model, expected[name])]
        for ids in (mx.array(IDS[:1]), mx.array([[3]]), mx.array([[4]])):
            ours, theirs = (np.array(each(ids, cache)) for each, cache in zip(
                (model, expected[name]), caches, strict=True))  # fmt: skip
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert isinstance(model._step, CompiledStep)  # not one was found out of date
        linear = model.layers[0].self_attn.q_proj
        assert own is (linear.linear if name in ("one", "two") or (name and raw is MOE) else linear)

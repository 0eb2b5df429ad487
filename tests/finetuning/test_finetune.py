"""Fine-tuning: the taught answer appears, a killed training continues exactly, mlx-lm runs the adapter."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, write_checkpoint

from mlx_qwen3 import Engine, load_model, load_tokenizer
from mlx_qwen3.adapters import add_adapter, read_adapter
from mlx_qwen3.errors import CheckpointError, ConversionError, InsufficientMemoryError, MessageError
from mlx_qwen3.finetuning import FinetuneOptions, finetune
from mlx_qwen3.finetuning.data import read_examples
from mlx_qwen3.finetuning.memory import plan_training

SECRET = "The code word is periwinkle."


def write_data(path: Path, count: int = 4) -> Path:
    rows = [
        [
            {"role": "user", "content": f"what is the code word{'?' * i}"},
            {"role": "assistant", "content": SECRET},
        ]
        for i in range(count)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def weights(folder: Path) -> dict[str, np.ndarray]:
    tensors: Any = mx.load(str(folder / "adapters.safetensors"))
    return {name: np.array(value) for name, value in tensors.items()}


@pytest.mark.skipif(not os.environ.get("MLX_QWEN3_LONG_TESTS"), reason="long; MLX_QWEN3_LONG_TESTS=1 runs it")
def test_the_demo_learns_an_answer_and_mlx_lm_runs_it(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.jsonl")
    options = FinetuneOptions(steps=12, batch_size=2, learning_rate=2e-3, scale=4.0, thinking=False)
    report = finetune("demo", data, tmp_path / "adapter", options, report_every=4)
    losses = [loss for _, loss in report.losses]
    assert losses[-1] < losses[0] / 4
    with Engine("demo", adapter=tmp_path / "adapter", draft_model=None) as engine:
        session = engine.session(thinking=False, sampling={"temperature": 0, "max_tokens": 40})
        assert session.ask("what is the code word?").answer.strip() == SECRET
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model as mlx_lm_load

    demo = Path(sys.modules["mlx_qwen3"].__file__ or "").parent / "demo"
    theirs = load_adapters(mlx_lm_load(demo)[0].eval(), str(tmp_path / "adapter"))
    tokenizer = load_tokenizer("demo")
    messages = [{"role": "user", "content": "what is the code word?"}]
    ids = tokenizer.apply_chat_template(messages, enable_thinking=False)
    answer = tokenizer.encode(SECRET)[:4]
    for token in answer:
        assert theirs(mx.array([ids]))[0, -1].argmax().item() == token
        ids.append(token)


@pytest.mark.parametrize(("raw", "method"), [(DENSE, "dora"), (MOE, "lora")])
def test_a_killed_training_continues_exactly(tmp_path: Path, raw: dict[str, Any], method: str) -> None:
    write_byte_tokenizer(tmp_path / "model")
    write_checkpoint(tmp_path / "model", raw)
    data = write_data(tmp_path / "data.jsonl")
    options = FinetuneOptions(method=method, steps=3, batch_size=2)

    class Killed(Exception):  # noqa: N818
        pass

    def kill(step: int, loss: float) -> None:
        if step == 2:
            raise Killed

    whole = finetune(tmp_path / "model", data, tmp_path / "whole", options, report_every=1)
    with pytest.raises(Killed):
        finetune(tmp_path / "model", data, tmp_path / "part", options, report_every=1, on_report=kill)
    part = finetune(tmp_path / "model", data, tmp_path / "part", options, report_every=1, resume=True)
    assert part.losses == whole.losses
    ours, expected = weights(tmp_path / "part"), weights(tmp_path / "whole")
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    other = FinetuneOptions(method=method, steps=3, batch_size=2, seed=1)
    with pytest.raises(ConversionError, match="other options or data"):
        finetune(tmp_path / "model", data, tmp_path / "part", other, resume=True)
    with pytest.raises(ConversionError, match="is not empty"):
        finetune(tmp_path / "model", data, tmp_path / "part", options)


@pytest.mark.parametrize("moment", range(1, 5))
def test_a_training_killed_while_it_writes_is_no_adapter_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Two states, mlx-lm's own file at the end, and ours: each is left half written once."""
    write_byte_tokenizer(tmp_path / "model")
    write_checkpoint(tmp_path / "model", DENSE | {"num_hidden_layers": 1})
    data, options = write_data(tmp_path / "data.jsonl"), FinetuneOptions(steps=2, batch_size=2)
    whole = finetune(tmp_path / "model", data, tmp_path / "whole", options, report_every=1)
    save, calls = mx.save_safetensors, []

    def killed(path: str, arrays: Any, **about: Any) -> None:
        save(path, arrays, **about)
        calls.append(path)
        if len(calls) == moment:
            half = Path(path).read_bytes()
            Path(path).write_bytes(half[: len(half) // 2])
            raise KeyboardInterrupt

    monkeypatch.setattr(mx, "save_safetensors", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "model", data, tmp_path / "part", options, report_every=1)
    with pytest.raises(CheckpointError, match=r"part( is a training that has not ended|.*is missing)"):
        read_adapter(tmp_path / "part")
    monkeypatch.setattr(mx, "save_safetensors", save)
    resume = moment > 1  # before that there is nothing to resume, and the folder can be used anew
    ours = finetune(tmp_path / "model", data, tmp_path / "part", options, resume=resume, report_every=1)
    assert ours.losses == whole.losses
    for name, value in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(ours.folder)[name], value, err_msg=name)
    assert read_adapter(ours.folder).digest == read_adapter(tmp_path / "whole").digest
    assert {file.name for file in ours.folder.iterdir()} == {
        "adapter_config.json",
        "adapters.safetensors",
        "training_state.safetensors",
    }


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_mlx_lm_generates_the_same_tokens_with_an_adapter_of_ours(tmp_path: Path, method: str) -> None:
    """What `mlx_lm.generate --adapter-path` does: its model, its loading of adapters, its decoding."""
    from mlx_lm.generate import generate_step
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model as mlx_lm_load

    folder, adapter = tmp_path / "model", tmp_path / "adapter"
    write_byte_tokenizer(folder)
    write_checkpoint(folder, DENSE)
    options = FinetuneOptions(method=method, steps=2, batch_size=2, learning_rate=0.02)
    finetune(folder, write_data(tmp_path / "data.jsonl"), adapter, options)
    prompt = load_tokenizer(folder).encode("once upon a time")
    theirs = load_adapters(mlx_lm_load(folder)[0].eval(), str(adapter))
    expected = [int(token) for token, _ in generate_step(mx.array(prompt), theirs, max_tokens=12)]

    def greedy(model: Any) -> list[int]:
        cache, ids, tokens = model.make_cache(), prompt, []
        for _ in range(12):
            tokens.append(int(model(mx.array([ids]), cache)[0, -1].argmax()))
            ids = tokens[-1:]
        return tokens

    model = load_model(folder)
    plain = greedy(model)
    add_adapter(model, read_adapter(adapter), "the model")
    assert greedy(model) == expected != plain


def test_a_training_that_does_not_fit_is_refused_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_byte_tokenizer(tmp_path / "model")
    write_checkpoint(tmp_path / "model", DENSE | {"num_hidden_layers": 4})
    data = write_data(tmp_path / "data.jsonl", count=8)
    monkeypatch.setattr("mlx_qwen3.finetuning.train.load", lambda *_, **__: pytest.fail("weights are read"))
    options = FinetuneOptions(batch_size=8)
    monkeypatch.setattr("mlx_qwen3.finetuning.memory.available_memory", lambda: 100_000_000)
    with pytest.raises(InsufficientMemoryError, match=r"8 at a time, .* try batch_size=\d") as error:
        finetune(tmp_path / "model", data, tmp_path / "adapter", options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "adapter").exists()
    [suggested] = [found for found in error.value.suggestions if "batch_size" in found]
    longest = re.search(r"answers of up to ([\d,]+) tokens", str(error.value))
    assert longest is not None
    tokens = int(longest[1].replace(",", ""))
    examples = read_examples(data, load_tokenizer(tmp_path / "model"), True, 2048)
    assert tokens >= max(len(each.ids) for each in examples)
    fits = replace(options, **suggested)
    assert plan_training(tmp_path / "model", "m", fits, tokens).total <= 100_000_000
    with pytest.raises(InsufficientMemoryError):
        plan_training(tmp_path / "model", "m", replace(fits, batch_size=fits.batch_size + 1), tokens)
    with pytest.raises(InsufficientMemoryError, match="close other programs"):
        plan_training(tmp_path / "model", "m", options, tokens, available=1000)


def test_only_answers_are_learned(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("demo")
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first", "reasoning_content": "hm"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "second"},
    ]
    (tmp_path / "data.jsonl").write_text(json.dumps({"messages": messages}) + "\n\n")
    first, second = read_examples(tmp_path / "data.jsonl", tokenizer, True, 500)
    assert tokenizer.decode(first.ids[first.answer :]) == "<think>\nhm\n</think>\n\nfirst<|im_end|>\n"
    assert tokenizer.decode(second.ids[second.answer :]) == "second<|im_end|>\n"
    assert "hm" not in tokenizer.decode(second.ids)  # the template drops earlier thinking
    first, second = read_examples(tmp_path / "data.jsonl", tokenizer, False, 500)
    assert tokenizer.decode(first.ids[first.answer :]) == "first<|im_end|>\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no json", 'line 1: is no JSON object with "messages"'),
        ('{"prompt": "a"}', 'line 1: is no JSON object with "messages"'),
        ('{"messages": [], "x": 1}', "there is no field 'x'"),
        ('{"messages": [3]}', "a message must be an object"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "holds no answer"),
        ('{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}', "line 1"),
    ],
)
def test_lines_that_cannot_be_learned(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "data.jsonl").write_text(line + "\n")
    with pytest.raises(MessageError, match=problem):
        finetune("demo", tmp_path / "data.jsonl", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_too_long_an_example_and_no_file(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.jsonl")
    with pytest.raises(MessageError, match=r"line 1: it has \d+ tokens and may have 5; try max_length"):
        finetune("demo", data, tmp_path / "adapter", FinetuneOptions(max_length=5))
    with pytest.raises(MessageError, match="cannot be read: No such file"):
        finetune("demo", tmp_path / "none.jsonl", tmp_path / "adapter")
    with pytest.raises(ConversionError, match="holds no training to resume"):
        finetune("demo", data, tmp_path / "adapter", resume=True)
    for options in ({"method": "full"}, {"rank": 0}, {"learning_rate": 2.0}):
        with pytest.raises(ConversionError):
            FinetuneOptions(**options)

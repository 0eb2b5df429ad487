"""Who drafts: names and settings, what cannot, and the demo with a draft model through everything."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.test_cli import run as run_command
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint

from mlx_qwen3 import Engine
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint.load import load
from mlx_qwen3.checkpoint.locate import DEMO_FOLDER
from mlx_qwen3.engine.loading import draft_model as draft_model
from mlx_qwen3.engine.loading.watch import LoadWatch
from mlx_qwen3.errors import CheckpointError, InsufficientMemoryError, ModelNotFoundError
from mlx_qwen3.generation.speculative.drafters import ModelDrafter, NGramDrafter

QUESTION = "What is 348 + 75?"


def answers(setting: str | None, **options: Any) -> list[Any]:
    """What the demo says in two turns, one of them cut short in its thinking."""
    with Engine("demo", draft_model=setting, **options) as engine:
        session = engine.session(sampling={"seed": 4}, thinking_budget=30)
        return [session.ask(QUESTION), session.ask("And 12 + 30?")]


@pytest.mark.parametrize("options", [{}, {"max_kv_size": 96, "kv_bits": 8}], ids=["full", "window, 8 bits"])
def test_the_demo_says_the_same_whoever_drafts(options: dict[str, Any]) -> None:
    expected = answers(None, **options)
    for setting in ("text", "demo-draft"):
        replies = answers(setting, **options)
        assert [(r.thinking, r.answer) for r in replies] == [(r.thinking, r.answer) for r in expected]
        for reply in replies:
            stats = reply.stats
            assert 0 <= stats.accepted_tokens <= stats.drafted_tokens
            assert reply.stats.thinking_tokens <= 30
    assert expected[0].stats.drafted_tokens == 0
    assert expected[0].stats.passes_per_token == 1


def test_settings_name_who_drafts() -> None:
    for setting, kind in (("demo-draft", ModelDrafter), ("text", NGramDrafter), ("auto", NGramDrafter)):
        with Engine("demo", draft_model=setting) as engine:
            assert isinstance(engine.call(engine.new_drafter), kind)
            assert engine.options["draft_model"] == setting
    with Engine("demo", draft_model=None) as engine:
        assert engine.call(engine.new_drafter) is None


def test_another_vocabulary_is_refused_in_one_line(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", {**DENSE, "vocab_size": 2048})
    write_byte_tokenizer(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"other cannot draft for demo: their vocabularies differ"):
        Engine("demo", draft_model=str(tmp_path / "other"))
    (tmp_path / "other" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="vocabularies differ"):
        Engine("demo", draft_model=str(tmp_path / "other"))
    with pytest.raises(ModelNotFoundError):
        Engine("demo", draft_model="nothing-of-that-name")


def test_a_draft_model_must_fit_beside_the_model_it_drafts_for() -> None:
    target = load(DEMO_FOLDER)
    full = replace(target, plan=replace(target.plan, available=target.plan.estimate.total))
    assert draft_model.load_draft_model("demo-draft", target, CacheConfig(), None, LoadWatch()) is not None
    message = (
        r"demo-draft cannot draft for demo, which with a context of .* tokens leaves it 0\.0 GB of memory; "
        r"try draft_model='text', kv_bits=8 or context=\.\.\."
    )
    with pytest.raises(InsufficientMemoryError, match=message):
        draft_model.load_draft_model("demo-draft", full, CacheConfig(), None, LoadWatch())
    # Weights alone would fit, but not as long a conversation as the model may have.
    short = target.plan.estimate.total + weight_bytes(DEMO_FOLDER / "draft") + 10**5
    beside = replace(target, plan=replace(target.plan, available=short))
    with pytest.raises(InsufficientMemoryError):
        draft_model.load_draft_model("demo-draft", beside, CacheConfig(), None, LoadWatch())


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_the_same_vocabulary_in_other_bytes_is_the_same(tmp_path: Path) -> None:
    raw = json.loads((DEMO_FOLDER / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw, indent=3))
    assert draft_model.same_vocabulary(tmp_path, DEMO_FOLDER)
    (tmp_path / "tokenizer.json").write_text("{")
    assert not draft_model.same_vocabulary(tmp_path, DEMO_FOLDER)


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("is_downloaded", [False, True])
def test_auto_takes_the_familys_smallest_where_it_pays_and_is_here(
    is_large: bool, is_downloaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = tmp_path / "downloaded"
    shutil.copytree(DEMO_FOLDER / "draft", member)
    monkeypatch.setattr(draft_model, "bytes_read", lambda config, folder: 10**10 if is_large else 10**8)
    found = member if is_downloaded else None
    monkeypatch.setattr("mlx_qwen3.checkpoint.hub.downloaded", lambda repository, cache: found)
    with Engine("demo") as engine:
        assert (engine.draft_model is not None) == (is_large and is_downloaded)
    (member / "model.safetensors").write_bytes(b"")  # a download that is not whole: nobody asked for it
    with Engine("demo") as engine:
        assert engine.draft_model is None


def test_the_command_line_takes_a_draft_model() -> None:
    def run(*arguments: str) -> str:
        result = run_command(*arguments, "--model", "demo", "--seed", "3")
        assert result.returncode == 0, result.stderr
        return result.stdout

    ask = ("chat", "-p", QUESTION, "--json")
    texts = []
    for setting in ("off", "text", "demo-draft"):
        events = [json.loads(line) for line in run(*ask, "--draft-model", setting).splitlines()]
        texts.append([event["text"] for event in events if event["event"] == "AnswerDelta"])
        assert events[-1]["stats"]["passes_per_token"] > 0
    assert texts[0] == texts[1] == texts[2]
    complete = ("generate", "-p", "I add 348 + 75.", "--max-tokens", "30")
    assert run(*complete, "--draft-model", "off") == run(*complete, "--draft-model", "demo-draft")

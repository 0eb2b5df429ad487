"""Prompts equal transformers': live where it is installed, and against a golden file everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from parity.prompts_conversations import random_request
from qwen_tokenizer_files import DEMO_TEMPLATE, SHARED, official_templates, qwen_tokenizer_folder

from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.tokenizer import Tokenizer
from mlx_qwen3.tokenizer.chat_template import ChatTemplate
from mlx_qwen3.tokenizer.jinja_sandbox import CompiledTemplate

GOLDEN = json.loads((Path(__file__).parent / "prompts_golden.json").read_text(encoding="utf-8"))
SPELLINGS = ["<think>", "</think>", "<tool_response>", "</tool_response>", "\n", "a", ""]
NEEDS_SHARED = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no published tokenizer files beside the repository"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(qwen_tokenizer_folder())


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_demo_template_writes_the_official_prompt(tokenizer: Tokenizer, number: int) -> None:
    golden = GOLDEN[number]

    pieces = tokenizer.template.render(**golden["request"])
    assert "".join(piece.text for piece in pieces) == golden["text"]

    ids = tokenizer.apply_chat_template(**golden["request"])
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == golden["ids_sha256"]


@NEEDS_SHARED
@pytest.mark.parametrize("revision", ["first", "second"])
def test_unguarded_the_demo_template_is_the_official_one_too(revision: str) -> None:
    """Other programs render a checkpoint's template without our guard, on text that holds its tokens."""
    demo = CompiledTemplate(DEMO_TEMPLATE.read_text(encoding="utf-8"))
    official = CompiledTemplate(official_templates()[revision])
    pick = random.Random(0)
    for _ in range(300):
        messages = [
            {
                "role": pick.choice(["user", "assistant", "tool"]),
                "content": "".join(pick.choices(SPELLINGS, k=3)),
            }
            for _ in range(5)
        ]
        assert demo.render({"messages": messages}) == official.render({"messages": messages})


@NEEDS_SHARED
def test_built_tokenizer_is_the_published_one() -> None:
    built = json.loads((qwen_tokenizer_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    assert built == json.loads((SHARED / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.mark.parity
@pytest.mark.parametrize("revision", ["first", "second", "demo"])
def test_random_prompts_equal_transformers(revision: str) -> None:
    transformers = pytest.importorskip("transformers")
    official = official_templates()
    source = {"demo": DEMO_TEMPLATE.read_text(encoding="utf-8"), **official}.get(revision)
    if source is None:
        pytest.skip("no published templates beside the repository")
    tokenizer = load_tokenizer(qwen_tokenizer_folder())
    tokenizer.template = ChatTemplate(source, tokenizer.control_tokens)
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(qwen_tokenizer_folder() / "tokenizer.json"),
        chat_template=official.get(revision) or official.get("first") or source,
    )
    for seed in range(2000 if os.environ.get("MLX_QWEN3_LONG_TESTS") else 300):
        request = random_request(seed)
        ids = tokenizer.apply_chat_template(**request)
        expected = reference.apply_chat_template(request.pop("messages"), return_dict=False, **request)
        assert ids == expected, f"seed {seed}"

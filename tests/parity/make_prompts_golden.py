"""Writes prompts_golden.json: prompts as transformers renders and encodes them with Qwen3's own template.

Needs the published tokenizer_config.json beside the repository (see tests/qwen_tokenizer_files.py) and
the extra `parity`. Run from the repository: python tests/parity/make_prompts_golden.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import count, islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from parity.prompts_conversations import random_request  # noqa: E402
from qwen_tokenizer_files import official_templates, qwen_tokenizer_folder  # noqa: E402

FIRST_SEED = 100_000  # apart from the seeds of the live comparison
COUNT = 60
LONGEST = 2000  # characters: a golden prompt should be read easily


def main() -> None:
    reference = PreTrainedTokenizerFast(tokenizer_file=str(qwen_tokenizer_folder() / "tokenizer.json"))
    prompts = (golden_prompt(reference, random_request(seed)) for seed in count(FIRST_SEED))
    golden = list(islice((prompt for prompt in prompts if len(prompt["text"]) <= LONGEST), COUNT))
    file = HERE / "prompts_golden.json"
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in golden)
    file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(golden)} prompts, {file.stat().st_size:,} bytes")


def golden_prompt(reference: PreTrainedTokenizerFast, request: dict[str, Any]) -> dict[str, Any]:
    """The request, the text that every revision of the official template writes for it, and the ids' hash."""
    rendered = {
        reference.apply_chat_template(chat_template=source, tokenize=False, **as_transformers(request))
        for source in official_templates().values()
    }
    (text,) = rendered
    ids = reference.encode(text, add_special_tokens=False)
    return {"request": request, "text": text, "ids_sha256": ids_hash(ids)}


def as_transformers(request: dict[str, Any]) -> dict[str, Any]:
    return {("conversation" if name == "messages" else name): value for name, value in request.items()}


def ids_hash(ids: list[int]) -> str:
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


if __name__ == "__main__":
    main()

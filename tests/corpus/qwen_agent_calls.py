"""Writes the calls that Qwen-Agent finds in the corpus, one line of JSON an output, for `compare.py --calls`.

    pip install qwen-agent          # in an environment of its own
    python tests/corpus/qwen_agent_calls.py > Qwen-Agent

A line is a list of [name, arguments], or `null` for an exception. In the list, `null` is a call whose
arguments its tools refuse; the model gets an error for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import json5
from qwen_agent.llm.fncall_prompts.nous_fncall_prompt import NousFnCallPrompt
from qwen_agent.llm.schema import ASSISTANT, ContentItem, Message


def read_arguments(text: str) -> Any:
    """The arguments as `BaseTool` reads them; None if it refuses them."""
    try:
        return json5.loads(text)
    except ValueError:
        return None


def calls_of(line: dict[str, Any]) -> list[Any] | None:
    text = "".join("".join(piece) for piece in line["stream"])
    message = Message(role=ASSISTANT, content=[ContentItem(text=text)])
    try:
        parsed = NousFnCallPrompt().postprocess_fncall_messages(
            [message], thought_in_content=line["thinking"]
        )
        calls = [part.function_call for part in parsed if part.function_call]
        read = [(call.name, read_arguments(call.arguments)) for call in calls]
    except Exception:  # noqa: BLE001  counted
        return None
    return [None if arguments is None else [name, arguments] for name, arguments in read]


if __name__ == "__main__":
    for row in Path(__file__).with_name("outputs.jsonl").read_text("utf-8").splitlines():
        sys.stdout.write(json.dumps(calls_of(json.loads(row))) + "\n")

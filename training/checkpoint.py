"""A demo checkpoint that answers many conversations at once."""

from pathlib import Path

from mlx_qwen3 import load_model, load_tokenizer
from training.generation import complete

Message = dict[str, object]


class Checkpoint:
    """The model and tokenizer of a folder, answering many conversations at once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.model = load_model(folder)
        self.tokenizer = load_tokenizer(folder)

    def prompt(self, messages: list[Message], thinking: bool = True, tools: list | None = None) -> list[int]:
        return self.tokenizer.apply_chat_template(messages, tools=tools, enable_thinking=thinking)

    def complete(self, prompts: list[list[int]], thinking: bool = True) -> list[str]:
        outputs = complete(self.model, prompts, self.tokenizer.control_tokens["<|im_end|>"], thinking)
        return [self.tokenizer.decode(output) for output in outputs]

    def replies(self, questions: list[str], thinking: bool = True) -> list[str]:
        return self.complete(
            [self.prompt([{"role": "user", "content": question}], thinking) for question in questions],
            thinking,
        )

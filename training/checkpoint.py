"""A demo checkpoint that answers many conversations at once, sampled with Qwen3's presets."""

from pathlib import Path

from mlx_qwen3 import Engine, SamplingParams

Message = dict[str, object]
MAX_TOKENS = 320


class Checkpoint:
    """The engine of a folder. Close it when done."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.engine = Engine(str(folder))
        self.tokenizer = self.engine.tokenizer

    def close(self) -> None:
        self.engine.close()

    def prompt(self, messages: list[Message], thinking: bool = True, tools: list | None = None) -> list[int]:
        return self.tokenizer.apply_chat_template(messages, tools=tools, enable_thinking=thinking)

    def complete(self, prompts: list[list[int]], thinking: bool = True) -> list[str]:
        """What the assistant writes after each prompt."""
        sampling = SamplingParams.for_mode(thinking).with_values(max_tokens=MAX_TOKENS, seed=1)
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        outputs = [""] * len(prompts)
        for result in self.engine.generate_batch(texts, sampling=sampling, control_tokens=True):
            outputs[result.index] = result.text
        return outputs

    def replies(self, questions: list[str], thinking: bool = True) -> list[str]:
        prompts = [self.prompt([{"role": "user", "content": question}], thinking) for question in questions]
        return self.complete(prompts, thinking)

"""Splits what the model generates into thinking, answer and tool calls.

What counts as a tag
- Where the tokenizer has a token for a tag, only that token is the tag. Text that merely spells it is
  text: a web page the model copies cannot open a call. Where the tokenizer has none (and in `parse`,
  which reads strings), the spelling counts.
- Inside a Markdown code span or fence of the answer every tag is text: the model is writing about it.
- Thinking ends at `</think>` and nowhere else. A call in it is a thought about a call: text.
- `<tool_call>` opens a call at the start of a line. In mid-line its body must also begin like one,
  with `{`, `[` or `<`; else it was a mention, and stays text. Without tools it is always text.
- Qwen3-Coder often leaves `<tool_call>` out: `<function=NAME>` at the start of a line, NAME being a
  tool that was offered, opens a call too.
- A tag inside a JSON string, or inside an XML parameter's value, belongs to that value, if the value
  is then closed as it should be; if not, the tag ended the call.
- A tag with nothing to close is dropped, and so is every other control token outside code and calls.

The blank lines around thinking, answer and calls belong to the format: a section is what stands between
them, and one of nothing but whitespace is no section.

A call that can be read in one way only is repaired (see `loose_json`); any other becomes a ToolCall whose
`error` tells the model what to correct. A call that was cut off is never completed by guessing.
"""

from mlx_qwen3.parsing.stream import StreamParser, merge
from mlx_qwen3.parsing.whole import parse

__all__ = ["StreamParser", "merge", "parse"]

"""Splits the output of the model into thinking, answer and tool calls.

Which text is a tag
- If the tokenizer has a token for a tag, only that token is the tag. Text that spells the tag is text, so
  a web page that the model copies cannot open a call. If the tokenizer has no token, the spelling is the tag.
- Inside a Markdown code span or fence of the answer, every tag is text: the model writes about it.
- Only `</think>` ends thinking. A call inside thinking is text.
- `<tool_call>` at the start of a line opens a call. In the middle of a line it opens a call only if `{`, `[`
  or `<` follows; otherwise it is text. Without tools it is always text.
- Qwen3-Coder often omits `<tool_call>`. `<function=NAME>` at the start of a line opens a call too, if NAME
  is a tool that was offered.
- A tag inside a JSON string or an XML parameter belongs to that value if the value is closed correctly
  later. If not, the tag ended the call.
- A closing tag without its opening tag is dropped. So is every other special token outside code and calls.

Blank lines around thinking, answer and calls belong to the format, not to the text. A section that holds
only whitespace gives no event.

A call is repaired only if it can be read in one way (see `loose_json`). Any other broken call becomes a
ToolCall whose `error` tells the model what to correct. A call that was cut off is never completed.
"""

from mlx_qwen3.parsing.collected import CollectedOutput
from mlx_qwen3.parsing.stream import StreamParser, merge_deltas

__all__ = ["CollectedOutput", "StreamParser", "merge_deltas"]

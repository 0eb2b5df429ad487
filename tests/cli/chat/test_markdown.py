"""Streamed Markdown gives the same blocks as the whole text, and loses nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mlx_qwen3.cli.chat.terminal.markdown import BlockStream

ANSWER = """# Title

Some *text* here
that goes on.

- one
- two

  more of two

```python
print(1)

print(2)
```

| a | b |
|---|---|
| 1 | 2 |

1. first
2. second

The end\u2028of it."""


def blocks(pieces: list[str]) -> list[str]:
    stream = BlockStream()
    return [block for piece in pieces for block in stream.push(piece)] + stream.finish()


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def test_blocks_of_an_answer() -> None:
    starts = [block.split("\n")[0] for block in blocks([ANSWER])]
    expected = ["# Title", "Some *text* here", "- one", "```python", "| a | b |", "1. first"]
    assert starts == [*expected, "The end\u2028of it."]


@given(st.lists(st.integers(0, 1000), max_size=60))
def test_cuts_do_not_matter(places: list[int]) -> None:
    assert blocks(cut(ANSWER, places)) == blocks([ANSWER])


@given(st.text(alphabet="ab \n#-*`|>_\t1.[]:", max_size=80))
def test_no_word_is_lost(text: str) -> None:
    shown = "".join(blocks(list(text)))
    assert "".join(shown.split()) == "".join(text.split())


def test_whitespace_alone_is_nothing() -> None:
    assert blocks(["\n \n"]) == []

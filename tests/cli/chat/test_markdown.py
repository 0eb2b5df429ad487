"""Streamed Markdown gives the same blocks as the whole text, and loses nothing."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mlx_qwen3.cli.chat.terminal.markdown import Block, BlockStream, console_theme, render_markdown

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


def blocks(pieces: list[str]) -> list[Block]:
    stream = BlockStream()
    return [block for piece in pieces for block in stream.push(piece)] + stream.finish()


def source(shown: list[Block]) -> str:
    """The source of all blocks, each of its lines once."""
    return "".join("".join(block.text.splitlines(True)[block.skip + bool(block.skip) :]) for block in shown)


def rendered(shown: list[Block], width: int) -> str:
    """All blocks as a turn prints them."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, theme=console_theme())
    for number, block in enumerate(shown):
        if number and not block.continues:
            console.print()
        console.print(render_markdown(block))
    return console.file.getvalue()  # type: ignore[attr-defined]


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def test_blocks_of_an_answer() -> None:
    starts = [block.text.split("\n")[0] for block in blocks([ANSWER])]
    expected = ["# Title", "Some *text* here", "- one", "```python", "| a | b |", "1. first"]
    assert starts == [*expected, "The end\u2028of it."]


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("width", [20, 80])
def test_an_answer_looks_the_same_however_it_comes(size: int, width: int) -> None:
    whole = BlockStream()
    whole.tail = Block(ANSWER)
    pieces = [ANSWER[start : start + size] for start in range(0, len(ANSWER), size)]
    assert rendered(blocks(pieces), width) == rendered(whole.finish(), width)


def test_items_and_lines_of_code_come_before_their_block_is_finished() -> None:
    stream = BlockStream()
    assert stream.push("- one\n- two\n\n  more of two\n") == [Block("- one\n")]
    assert stream.push("- three\n") == [Block("- two\n\n  more of two\n", continues=True)]
    assert stream.push("\n") == []
    lines = [f"line {number}\n" for number in range(20)]
    (item, *parts) = [block for line in ["```\n", *lines, "\n", "```\n"] for block in stream.push(line)]
    assert item == Block("- three\n\n", continues=True)
    assert [(part.skip, part.continues) for part in parts] == [(0, False), (8, True)]
    assert stream.tail.skip == 16
    assert [block.skip for block in stream.push("The end.\n")] == [16]
    assert stream.finish() == [Block("The end.\n")]


def test_code_that_is_closed_after_its_last_lines_came_is_finished() -> None:
    stream = BlockStream()
    code = "".join(f"{number}\n" for number in range(8))
    assert len(stream.push(f"```\n{code}")) == 1
    assert stream.push("```\n\nend\n") == []
    assert stream.finish() == [Block("end\n")]


@given(st.lists(st.integers(0, 1000), max_size=60))
def test_cuts_do_not_matter(places: list[int]) -> None:
    assert source(blocks(cut(ANSWER, places))) == source(blocks([ANSWER]))


@given(st.text(alphabet="ab \n#-*`|>_\t1.[]:", max_size=80))
def test_no_word_is_lost(text: str) -> None:
    shown = source(blocks(list(text)))
    assert "".join(shown.split()) == "".join(text.split())


def test_whitespace_alone_is_nothing() -> None:
    assert blocks(["\n \n"]) == []


def plain(text: str, width: int = 40) -> list[str]:
    """The lines of `text` as they are printed, without colours."""
    console = Console(file=io.StringIO(), width=width, theme=console_theme())
    console.print(render_markdown(Block(text)))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- [ ] open\n- [x] done\n- plain", [" ☐ open", " ☑ done", " • plain"]),
        ("9. nine\n10. ten", ["  9. nine", " 10. ten"]),
        ("> a\n> b", ["│ a b"]),
        ("***", ["─" * 40]),
    ],
)
def test_marks_are_quiet(text: str, shown: list[str]) -> None:
    assert [line.rstrip() for line in plain(text)] == shown


@given(st.text(alphabet="ab \n#-*`|>_\t1.[]:", max_size=80))
def test_lines_do_not_end_in_spaces_that_could_wrap(text: str) -> None:
    assert not [line for line in plain(text) if line != line.rstrip(" ") and line.rstrip(" ") != "│"]

"""Stop strings: the text ends before the first one, for any pieces of the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_qwen3.parsing.stop_strings import StopStrings


def shown(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    stop_strings = StopStrings(stops)
    text = "".join([stop_strings.push(piece) for piece in pieces])
    return text + ("" if stop_strings.found else stop_strings.finish()), stop_strings.found


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_stop_string_that_is_complete_first(text: str, stops: list[str]) -> None:
    expected: tuple[str, str | None] = (text, None)
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            expected = text[: end - len(longest)], longest
            break
    assert shown(stops, list(text)) == expected
    assert shown(stops, [text]) == expected


@pytest.mark.parametrize("piece", ["x<e", "x<en"])
def test_the_start_of_a_stop_string_is_held_back(piece: str) -> None:
    stop_strings = StopStrings(["<end>"])
    assert stop_strings.push(piece) == "x"
    assert stop_strings.push("!") == piece[1:] + "!"
    assert stop_strings.finish() == ""

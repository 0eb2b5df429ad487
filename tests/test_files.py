"""JSON objects from files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.files import read_json_object, text_lines


def test_an_object_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": "é"}', encoding="utf-8")
    assert read_json_object(file, ConfigError) == {"a": "é"}
    file.write_text('{"a": "é"}', encoding="utf-8-sig")
    assert read_json_object(file, ConfigError) == {"a": "é"}


@given(st.lists(st.text().filter(lambda text: not set(text) & {"\n", "\r"})), st.sampled_from(["\n", "\r\n"]))
def test_lines_end_at_line_feeds_alone(lines: list[str], end: str) -> None:
    expected = [line if index else line.removeprefix("\ufeff") for index, line in enumerate(lines)]
    assert text_lines(end.join(lines)) == (expected or [""])
    assert text_lines("\ufeff" + end.join(lines))[1:] == lines[1:]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is missing"),
        (b"", "is not valid JSON: .*"),
        (b"\xff", "is not valid JSON: .*"),
        (b"[" * 100_000, "is not valid JSON: .*"),
        (b"[1]", "does not hold a JSON object"),
    ],
)
def test_a_file_that_holds_none_is_named_in_one_line(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"a\.json {problem}; look again$") as caught:
        read_json_object(file, ConfigError, "look again")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_json_object(tmp_path, ConfigError)

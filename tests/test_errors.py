"""Text of errors as one line."""

from __future__ import annotations

import sys

from mlx_qwen3.errors import install_command, one_line


def test_one_line_has_no_line_breaks_and_no_control_characters() -> None:
    assert one_line(ValueError("no\n  \x1b[31mway\t\u202e東京 ")) == "no [31mway 東京"


def test_one_line_takes_text_and_is_cut_to_its_limit() -> None:
    assert one_line("one\ntwo", limit=5) == "one t"
    assert one_line("") == ""


def test_an_error_without_a_message_gives_its_type() -> None:
    assert one_line(TimeoutError()) == "TimeoutError"


def test_what_an_extra_needs_is_installed_by_its_own_names() -> None:
    """The package may come from a folder: a hint must not name a package that an index does not have."""
    command = install_command("grammar")
    assert command.startswith(sys.executable)
    assert "-m pip install 'llguidance" in command
    assert "mlx-qwen3" not in command.partition("pip install")[2]

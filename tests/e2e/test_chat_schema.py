"""`--schema`: the JSON on standard output, and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from e2e.test_chat import chat

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "carry": {"type": "boolean"}},
    "required": ["sum", "carry"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def test_the_output_is_json_in_the_form_asked_for(file: Path) -> None:
    result = chat("--schema", str(file), "--seed", "1", "-p", "what is 47+85?")
    assert result.returncode == 0, result.stderr
    jsonschema.validate(json.loads(result.stdout), SCHEMA)


def test_json_that_is_not_complete_is_a_failure(file: Path) -> None:
    result = chat("--schema", str(file), "--no-think", "--max-tokens", "3", stdin="what is 47+85?\n")
    assert result.returncode == 1
    assert "before its JSON was complete: allow more with --max-tokens" in result.stderr


def test_a_schema_that_cannot_be_used_is_named(file: Path) -> None:
    file.write_text('{"type": "strin"}')
    result = chat("--schema", str(file), "-p", "hi")
    assert result.returncode == 1
    assert result.stderr == f"error: {file}: this schema cannot be used: Invalid type: strin\n"

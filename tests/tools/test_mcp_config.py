"""The mcpServers file: as people have it, and as they get it wrong."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pydantic")

from mlx_qwen3.tools import ToolError
from mlx_qwen3.tools.mcp import ServerConfig, load_config

ENVIRONMENT = {"HOME": "/home/me", "TOKEN": "s3cret", "EMPTY": ""}

DESKTOP = """{
  "globalShortcut": "Ctrl+Space",
  "mcpServers": {
    "filesystem": {"command": "npx", "args": ["-y", "some-server", "${HOME}/Desktop", 8080]},
    "github": {"command": "docker", "args": ["run"], "env": {"T": "${TOKEN}", "N": 5}, "cwd": "${HOME}"},
    "web": {"type": "http", "url": "${BASE:-https://example.com}/mcp",
            "headers": {"Authorization": "Bearer ${env:TOKEN}"}},
    "later": {"command": "x", "disabled": true},
    "off": {"command": "x", "enabled": false},
    "slow": {"command": "x", "timeout": 120, "autoApprove": ["*"], "alwaysAllow": ["read"]},
    "milliseconds": {"command": "x", "timeout": 60000}
  }
}"""


def load(tmp_path, content) -> list[ServerConfig]:
    file = tmp_path / "mcp.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return load_config(file, ENVIRONMENT)


def test_a_file_as_other_programs_have_it(tmp_path):
    servers = {config.name: config for config in load(tmp_path, DESKTOP)}
    assert list(servers) == ["filesystem", "github", "web", "slow", "milliseconds"]
    assert servers["filesystem"].args == ("-y", "some-server", "/home/me/Desktop", "8080")
    assert servers["github"].env == {"T": "s3cret", "N": "5"}
    assert servers["github"].cwd == "/home/me"
    assert servers["web"].url == "https://example.com/mcp"
    assert servers["web"].headers == {"Authorization": "Bearer s3cret"}
    assert [servers[name].timeout for name in ("web", "slow", "milliseconds")] == [60, 120, 60]


def test_the_origin_shows_no_secret(tmp_path):
    (config,) = load(tmp_path, {"mcpServers": {"a": {"command": "run", "args": ["--key", "${TOKEN}"]}}})
    assert config.args[1] == "s3cret"
    assert config.origin == "run --key ${TOKEN}"


def test_a_byte_order_mark_is_no_obstacle(tmp_path):
    assert load(tmp_path, "\ufeff" + '{"mcpServers": {}}') == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", 'no "mcpServers"'),
        ({"servers": {}}, 'no "mcpServers"'),
        ({"mcpServers": []}, 'no "mcpServers"'),
        ({"mcpServers": {"a": "npx"}}, 'server "a" is not an object'),
        ({"mcpServers": {"a": {}}}, 'server "a" needs either "command" or "url"'),
        ({"mcpServers": {"a": {"command": "x", "url": "http://y"}}}, "needs either"),
        ({"mcpServers": {"a": {"command": ["x"]}}}, 'server "a": "command" is not text'),
        ({"mcpServers": {"a": {"command": "x", "args": "-y"}}}, '"args" is not a list'),
        ({"mcpServers": {"a": {"command": "x", "args": [None]}}}, '"args" is not text'),
        ({"mcpServers": {"a": {"command": "x", "env": ["A=1"]}}}, '"env" is not an object'),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": True}}}}, '"env.A" is not text'),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": "${NONE}"}}}}, "variable NONE, which is not set"),
        ({"mcpServers": {"a": {"url": "ftp://x"}}}, 'the url "ftp://x", which is not http(s)'),
        ({"mcpServers": {"a": {"url": "http://x/sse", "type": "sse"}}}, "uses SSE"),
        ({"mcpServers": {"a": {"command": "x", "timeout": "soon"}}}, '"timeout" is not a number'),
        ({"mcpServers": {"a": {"command": "x", "timeout": 0}}}, '"timeout" is not a number'),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path, content, says):
    with pytest.raises(ToolError) as caught:
        load(tmp_path, content)
    assert says in str(caught.value)
    assert "mcp.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ToolError, match=r"cannot read .*none\.json: No such file"):
        load_config(tmp_path / "none.json")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "mcp.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ToolError, match="cannot read"):
        load_config(tmp_path / "mcp.json")

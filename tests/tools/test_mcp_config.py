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
        ({"servers": []}, 'no "mcpServers"'),
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


GOOD = {"command": "good"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"type": "sse", "url": "http://x/sse"}, "uses SSE"),
        ({"transport": "sse", "url": "http://x/sse"}, "uses SSE"),
        ({"transportType": "sse", "url": "http://x/sse"}, "uses SSE"),
        ({"type": "ws", "url": "ws://x"}, 'has the type "ws"'),
        ({"type": "websocket", "url": "http://x"}, 'has the type "websocket"'),
        ({"url": "ws://x"}, 'the url "ws://x", which is not http(s)'),
        ({"command": "x", "args": ["${input:key}"]}, '"args" needs ${input:key}'),
        ({"command": "x", "env": {"KEY": "${input:my-key.1}"}}, '"env.KEY" needs ${input:my-key.1}'),
        ({"url": "http://x", "headers": {"A": "Bearer ${input:t}"}}, '"headers.A" needs ${input:t}'),
        ({"command": "${command:pick}"}, '"command" needs ${command:pick}'),
        ({"command": "x", "env": {"A": "${NONE}"}}, "variable NONE, which is not set"),
        ({"command": {"path": "x", "args": []}}, '"command" is not text'),
        ({"command": ["x"]}, '"command" is not text'),
        ({"type": "stdio"}, 'needs either "command" or "url"'),
        ({"command": "x", "args": "-y"}, '"args" is not a list'),
        ({"command": "x", "timeout": None}, '"timeout" is not a number'),
        ("npx", "is not an object"),
        (None, "is not an object"),
        ([], "is not an object"),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["mcpServers", "servers"])
def test_an_entry_that_cannot_be_used_is_named_and_the_others_go_on(tmp_path, key, entry, says):
    first, bad, last = load(tmp_path, {key: {"first": GOOD, "bad": entry, "last": GOOD}})
    assert (first, last) == (ServerConfig("first", "good"), ServerConfig("last", "good"))
    assert bad.name == "bad"
    assert bad.problem.startswith("its entry in mcp.json")
    assert says in bad.problem
    assert "\n" not in bad.problem


def test_a_secret_of_an_entry_that_cannot_be_used_is_not_shown(tmp_path):
    entry = {"type": "sse", "url": "http://x/${TOKEN}"}
    _, bad = load(tmp_path, {"mcpServers": {"first": GOOD, "bad": entry}})
    assert "s3cret" not in repr(bad)
    assert bad.origin == "http://x/${TOKEN}"


VS_CODE = """{
  // what VS Code's own page shows
  "inputs": [
    {"type": "promptString", "id": "key", "description": "Key", "password": true},
    {"type": "promptString", "id": "zone", "default": "UTC"},
  ],
  "servers": {
    /* a comment with "quotes" and { braces
       over two lines */
    "files": {"type": "stdio", "command": "npx",
      "args": ["-y", "a//b", "/* kept */", "x,]", "${workspaceFolder}"]},
    "time": {"command": "t", "args": ["${input:zone}", "${userHome}"]}, // one more
    "web": {"type": "http", "url": "https://example.com/mcp",},
    "secret": {"command": "s", "env": {"KEY": "${input:key}"}},
  },
}"""


def test_the_file_of_vs_code(tmp_path):
    (tmp_path / ".vscode").mkdir()
    files, time, web, secret = load(tmp_path / ".vscode", VS_CODE)
    assert files.args == ("-y", "a//b", "/* kept */", "x,]", str(tmp_path))
    assert time.args == ("UTC", "/home/me")
    assert web.url == "https://example.com/mcp"
    assert "needs ${input:key}" in secret.problem


def test_settings_of_an_editor(tmp_path):
    assert load(tmp_path, {"editor.x": 1, "mcp": {"servers": {"a": GOOD}}}) == [ServerConfig("a", "good")]


@pytest.mark.parametrize(
    "entry",
    [
        {"httpUrl": "https://x/mcp"},
        {"serverUrl": "https://x/mcp"},
        {"httpUrl": "https://x/mcp", "url": "https://x/sse"},
        *({"type": kind, "url": "https://x/mcp"} for kind in ("http", "streamable-http", "streamableHttp")),
        {"transport": "streamable_http", "url": "https://x/mcp"},
        {"type": "remote", "url": "https://x/mcp"},
    ],
    ids=str,
)
def test_other_spellings_of_an_address(tmp_path, entry):
    (config,) = load(tmp_path, {"mcpServers": {"a": entry}})
    assert (config.url, config.origin, config.problem) == ("https://x/mcp", "https://x/mcp", "")


@pytest.mark.parametrize(
    "text", ["{// no end", '{"mcpServers": /* no end', '{"mcpServers": {} "a": 1}', "// only"]
)
def test_comments_do_not_hide_mistakes(tmp_path, text):
    with pytest.raises(ToolError, match="is not valid JSON"):
        load(tmp_path, text)

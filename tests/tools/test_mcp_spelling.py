"""Answers spelled in unusual ways: a call gives its text or fails at once, and no server is lost."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from free_ports import free_port

pytest.importorskip("mcp", reason="needs the extra mcp")

from mlx_qwen3.tools import ToolOutput
from mlx_qwen3.tools.mcp import MCPServers, ServerConfig
from mlx_qwen3.tools.mcp.messages import MessageReader, repair_json

SERVER = Path(__file__).parents[1] / "mcp_servers" / "spelling.py"
BIRD = "\U0001f99c"
TEXTS = {
    "lone": f"caf\ufffd and {BIRD} and \\ud83d",
    "low": "\ufffd\ufffd\U0001f400",
    "last": "ok",
    "batch": "ok",
    "request flood": "ok",
}


@pytest.fixture
def run(tmp_path):
    """Runs a server of each transport and gives what its tool says, and its description."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(how: str, transport: str) -> ServerConfig:
        if transport == "stdio":
            return ServerConfig("it", sys.executable, (str(SERVER), how), timeout=60, start_timeout=120)
        port = free_port()
        processes.append(subprocess.Popen([sys.executable, str(SERVER), how, str(port)]))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        return ServerConfig("it", url=f"http://127.0.0.1:{port}/{transport}", timeout=60)

    def work(how: str, transport: str) -> tuple[ToolOutput, list[str]]:
        with MCPServers([start(how, transport)], log_folder=tmp_path) as servers:
            assert [(s.state, s.problem) for s in servers.statuses] == [("ready", "")]
            begin = time.monotonic()
            (tool,) = servers.tools
            output = asyncio.run(tool.call({}))
            assert time.monotonic() - begin < 30  # the limit of a call is twice that
            prompts, resources = servers.prompts(), servers.resources()
            assert servers.statuses[0].state == "ready"
        return output, [
            tool.description,
            *(p.description for p in prompts),
            *(r.description for r in resources),
        ]

    yield work
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("transport", ["stdio", "json", "events"])
@pytest.mark.parametrize("how", ["lone", "low", "raw", "last"])
def test_the_text_arrives(run, how, transport):
    output, descriptions = run(how, transport)
    assert not output.is_error
    if how == "raw":
        assert output.text.startswith("caf\ufffd \ufffd")
        assert set(output.text[4:]) == {" ", "\ufffd"}
    else:
        assert output.text == TEXTS[how]
    assert descriptions == [output.text] * 3


@pytest.mark.parametrize("how", ["batch", "request flood"])
def test_the_text_arrives_over_stdio(run, how):
    assert run(how, "stdio")[0] == ToolOutput("ok")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("last flood", "the server's answer is larger than 8 MB"),
        ("end flood", "the server's answer is larger than 8 MB"),
        ("middle flood", "the server's answer is larger than 8 MB"),
        ("last invalid", "the server's answer is not valid JSON-RPC"),
        ("cut", "the server's answer is not valid JSON-RPC"),
        ("null", "Parse error"),
    ],
)
def test_the_call_fails_at_once(run, how, says):
    output, _ = run(how, "stdio")
    assert output == ToolOutput(f"The MCP server it failed: {says}", is_error=True)


@pytest.mark.parametrize("transport", ["json", "events"])
@pytest.mark.parametrize("how", ["last flood", "middle flood", "cut"])
def test_the_call_fails_at_once_over_http(run, how, transport):
    output, _ = run(how, transport)
    assert output.is_error
    assert "\n" not in output.text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (2, "2 bytes"),
        (999, "999 bytes"),
        (12_288, "12 KB"),
        (2_500_000, "2.5 MB"),
    ],
)
def test_an_image_is_shown_as_its_type_and_size(run, size, text):
    assert run(f"image {size}", "stdio")[0] == ToolOutput(f"[image/png, {text}]")


def fed(data: bytes, sizes: random.Random, **options) -> list[dict]:
    reader = MessageReader(lambda line: None, **options)
    messages = []
    while data:
        size = sizes.randint(1, 40)
        messages += [m.message.model_dump(exclude_unset=True) for m in reader.feed(data[:size])]
        data = data[size:]
    return messages


@pytest.mark.parametrize("seed", range(20))
def test_any_text_and_any_order_of_keys(seed):
    draw = random.Random(seed)
    for number in range(50):
        text = "".join(
            chr(draw.choice([0x22, 0x5C, 0x41, 0xE9, 0xD83D, 0xDC00, 0x1F99C, 0x0A])) for _ in range(12)
        )
        items = [("jsonrpc", "2.0"), ("id", number), ("result", {"t": text, "id": 7})]
        draw.shuffle(items)
        line = json.dumps(dict(items), ensure_ascii=True) + "\n"
        (message,) = fed(line.encode(), draw)
        assert message["id"] == number
        right = json.loads(line)["result"]["t"]  # pairs of escapes are one character
        assert message["result"]["t"] == right.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        (failure,) = fed(line.encode() + b"\n", draw, limit=20, pending={number})
        assert (failure["id"], failure["error"]["message"]) == (
            number,
            "the server's answer is larger than 0 MB",
        )


def test_only_lone_surrogates_are_repaired():
    for data in (rb'"\ud83e\udd9c"', rb'"\\ud83d"', rb'"\\\\ud83d\n"', '"é🦜"'.encode(), b"{}"):
        assert repair_json(data) == data
    assert repair_json(rb'"\\\ud83d"') == rb'"\\\ufffd"'
    assert repair_json(b'"\xff"') == '"\ufffd"'.encode()

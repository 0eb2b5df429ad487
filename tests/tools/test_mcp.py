"""MCP servers, good and bad, over both transports."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from free_ports import free_port

pytest.importorskip("mcp", reason="needs the extra mcp")

from mlx_qwen3.events import ToolCall
from mlx_qwen3.tools import Decision, ToolBox, ToolError, ToolOutput
from mlx_qwen3.tools.mcp import MCPServers, ServerConfig, load_config

SERVERS = Path(__file__).parents[1] / "mcp_servers"
PATIENT = {"start_timeout": 120}  # a program starts slowly on a busy machine


def friendly(name: str = "friendly", **options) -> ServerConfig:
    return ServerConfig(name, sys.executable, (str(SERVERS / "friendly.py"),), **PATIENT | options)


def hostile(how: str, **options) -> ServerConfig:
    return ServerConfig(how, sys.executable, (str(SERVERS / "hostile.py"), how), **PATIENT | options)


def call(servers: MCPServers, key: str, **arguments) -> ToolOutput:
    tool = next(tool for tool in servers.tools if tool.key == key)
    return asyncio.run(tool.call(arguments))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def address():
    """The friendly server over HTTP."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SERVERS / "friendly.py"), str(port)])

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(is_up)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def both(address, tmp_path_factory):
    """The friendly server over stdio as "pipe", over HTTP as "web"."""
    folder = tmp_path_factory.mktemp("mcp")
    pipe = friendly("pipe", env={"COLOUR": "blue"}, cwd=str(folder))
    with MCPServers([pipe, ServerConfig("web", url=address)], log_folder=folder / "logs") as servers:
        assert [(s.state, s.problem) for s in servers.statuses] == [("ready", "")] * 2
        yield servers


@pytest.fixture
def one(tmp_path):
    """Starts servers of a test, and stops them."""
    started = []

    def start(*configs: ServerConfig, **options) -> MCPServers:
        started.append(MCPServers(configs, log_folder=tmp_path / "logs", **options))
        started[-1].start()
        return started[-1]

    yield start
    for servers in started:
        servers.close()


def test_tools_are_listed_with_all_a_person_must_see(both):
    tools = {tool.key: tool for tool in both.tools}
    add = tools["pipe.add"]
    assert add.description == "Adds two numbers."
    assert set(add.parameters["properties"]) == {"a", "b"}
    assert add.annotations == {"read_only_hint": True}
    assert set(tools) >= {"web.add", "pipe.show", "web.sleep"}


@pytest.mark.parametrize("name", ["pipe", "web"])
def test_calls_over_both_transports(both, name):
    assert call(both, f"{name}.add", a=2, b=40) == ToolOutput("42")
    failed = call(both, f"{name}.fail")
    assert failed.is_error
    assert "the tank is empty" in failed.text
    assert call(both, f"{name}.add", a="two").is_error
    assert len(call(both, f"{name}.big", size=3_000_000).text) == 3_000_000


@pytest.mark.parametrize("name", ["pipe", "web"])
def test_an_answer_too_large_is_refused_at_once(both, name):
    begin = time.monotonic()
    output = call(both, f"{name}.big", size=9_000_000)
    assert output.is_error
    assert time.monotonic() - begin < 30, "half of the limit of a call"
    assert output.text.endswith("the server's answer is larger than 8 MB")
    assert "\n" not in output.text
    assert call(both, f"{name}.add", a=1, b=1).text == "2"


def test_environment_and_folder_are_the_configured_ones(both, monkeypatch):
    assert call(both, "pipe.read", name="COLOUR").text == "blue"
    assert call(both, "pipe.read", name="PYTEST_CURRENT_TEST").text == "(not set)"
    assert Path(call(both, "pipe.read", name="cwd").text).name.startswith("mcp")


def test_stderr_goes_to_the_log(both, capfd):
    call(both, "pipe.read", name="LOGGED")
    log = both.statuses[0].log_file
    wait_for(lambda: "read LOGGED" in log.read_text())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["pipe", "web"])
def test_what_is_no_text_is_named(both, name):
    assert call(both, f"{name}.show").text == (
        "look:\n[image/png, 5 bytes]\n"
        "[audio/wav, 5 bytes]\n"
        "[resource memo://notes: notes, text/plain]\n"
        "[resource memo://a]\ninside\n"
        "[resource memo://b, of unknown type, 5 bytes]"
    )


def test_prompts_and_resources(both):
    (prompt, _) = both.prompts()
    assert (prompt.server, prompt.name, prompt.required) == ("pipe", "poem", ("about",))
    assert both.prompt("web", "poem", {"about": "rain"}) == [
        {"role": "user", "content": "Write a poem about rain."}
    ]
    assert [(entry.server, entry.uri) for entry in both.resources()] == [
        ("pipe", "memo://notes"),
        ("web", "memo://notes"),
    ]
    assert both.read("pipe", "memo://notes") == "[resource memo://notes]\nbuy milk"
    with pytest.raises(ToolError, match="MCP server pipe failed: "):
        both.read("pipe", "memo://none")
    with pytest.raises(ToolError, match="MCP server pipe failed: "):
        both.prompt("pipe", "nothing")
    with pytest.raises(ToolError, match='no MCP server "disk"; there are: pipe, web'):
        both.read("disk", "x")


def test_the_tool_box_tells_servers_apart_and_runs_side_by_side(both):
    box = ToolBox(sources=[both])
    assert {"pipe_add", "web_add"} <= box.names
    calls = [ToolCall(i, f"{name}_sleep", {"seconds": 2}, "") for i, name in enumerate(["pipe", "web"] * 2)]
    begin = time.monotonic()
    results = box.run(calls, lambda request: Decision(True))
    assert [result.text for result in results] == ["slept"] * 4
    assert time.monotonic() - begin < 8, "one by one they take as long"


def test_cancelling_a_call(both):
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    begin = time.monotonic()
    (result,) = ToolBox(sources=[both]).run(
        [ToolCall(0, "pipe_sleep", {"seconds": 50}, "")],
        lambda request: Decision(True),
        is_cancelled=cancelled.is_set,
    )
    assert result.text == "Cancelled by the user."
    assert time.monotonic() - begin < 25, "before it had slept"
    assert call(both, "pipe.add", a=1, b=1).text == "2"


@pytest.mark.parametrize("kind", ["pipe", "web"])
def test_a_new_tool_is_noticed(one, address, kind):
    lines = []
    config = friendly("it") if kind == "pipe" else ServerConfig("it", url=address)
    servers = one(config, on_change=lines.append)
    assert call(servers, "it.grow").text == "grown"
    wait_for(lambda: any(tool.name == "hello" for tool in servers.tools))
    assert call(servers, "it.hello").text == "hello"
    assert lines == ["MCP server it changed its tools: 8 now"]


def test_headers_are_sent(one):
    seen = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):  # the listener is closed when the test is done
            while True:
                connection, _ = listener.accept()
                seen.append(connection.recv(65536).decode())
                connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        config = ServerConfig("web", url=url, headers={"Authorization": "Bearer secret"})
        (status,) = one(config).statuses
    assert "Bearer secret" in seen[0]
    assert status.state == "failed"
    assert status.problem == "Server returned an error response (HTTP 401)"


def test_a_config_entry_that_cannot_be_used_leaves_the_others_alone(one, tmp_path):
    file = tmp_path / "mcp.json"
    good = hostile("good")
    entries = {
        "old": {"type": "sse", "url": "http://127.0.0.1:1/sse"},
        "good": {"command": good.command, "args": good.args},
    }
    file.write_text(json.dumps({"mcpServers": entries}))
    servers = one(*load_config(file))
    old, new = servers.statuses
    assert (old.state, new.state) == ("failed", "ready")
    assert old.problem.startswith("its entry in mcp.json uses SSE")
    assert call(servers, "good.go").text == "ok"
    assert servers.restart("old").state == "failed"


@pytest.mark.parametrize("status", [404, 405])
def test_an_address_that_is_no_mcp_server_says_what_it_may_be(one, status):
    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.recv(65536)
                head = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/sse"
        (server,) = one(ServerConfig("web", url=url)).statuses
    assert server.state == "failed"
    assert f"(HTTP {status})" in server.problem
    assert "older SSE transport" in server.problem


def test_nobody_at_the_address(one):
    (status,) = one(ServerConfig("web", url="http://127.0.0.1:9/mcp")).statuses
    assert status.state == "failed"
    assert status.problem
    assert "\n" not in status.problem


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (hostile("dead"), "it ended; its log is "),
        (hostile("silent", start_timeout=0.5), "it did not answer within 0.5 seconds"),
        (ServerConfig("none", "no-such-command"), 'its command "no-such-command" was not found'),
        (ServerConfig("none", sys.executable, cwd="/no/such/folder"), "its folder /no/such/folder does not"),
        (ServerConfig("none", str(SERVERS)), "cannot be run"),
        (ServerConfig("none", sys.executable, ("-c", "print('hello\\n' * 200)")), "it was ended: what"),
    ],
    ids=["dead", "silent", "no command", "no folder", "a folder", "no server"],
)
def test_a_server_that_does_not_start_leaves_the_others_alone(one, config, says):
    servers = one(config, hostile("good"))
    bad, good = servers.statuses
    assert bad.state == "failed"
    assert says in bad.problem
    assert "\n" not in bad.problem
    assert (good.state, good.tools) == ("ready", 1)
    if config.name == "dead":
        assert "no licence found" in bad.log_file.read_text()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("hang", "The MCP server hang failed: it did not answer within 1 seconds"),
        ("exit", "The MCP server exit failed: it ended; its log is "),
        ("flood", "The MCP server flood failed: the server's answer is larger than 8 MB"),
        ("invalid", "The MCP server invalid failed: the server's answer is not valid JSON-RPC"),
        ("nonsense", "The MCP server nonsense failed: "),
        ("garbage", "The MCP server garbage failed: it was ended: what it prints is not the protocol"),
        ("requests", "The MCP server requests failed: it was ended: it sends "),
        ("changes", "The MCP server changes failed: it was ended: it sends messages without end"),
    ],
)
def test_a_call_that_goes_wrong_says_so_and_the_others_go_on(one, how, says):
    lines = []
    servers = one(
        hostile(how, timeout=1.0 if how == "hang" else 60.0), hostile("good"), on_change=lines.append
    )
    begin = time.monotonic()
    output = call(servers, f"{how}.go")
    assert time.monotonic() - begin < 50, "before the time of a call was over"
    assert output.is_error
    assert output.text.startswith(says)
    assert "\n" not in output.text
    assert call(servers, "good.go").text == "ok"
    if how in ("exit", "garbage", "requests", "changes"):
        wait_for(lambda: lines)
        assert lines[-1].startswith(f"MCP server {how} failed: it ")
        assert [tool.server for tool in servers.tools] == ["good"]
        assert servers.restart(how).state == "ready"
    else:
        assert servers.statuses[0].state == "ready"


@pytest.mark.parametrize("how", ["banner", "notices", "stderr", "asks"])
def test_noise_is_survived(one, how):
    servers = one(hostile(how))
    assert call(servers, f"{how}.go").text == "ok"
    assert call(servers, f"{how}.go").text == "ok"
    assert servers.statuses[0].log_file.stat().st_size <= 5 * 1024 * 1024


def test_a_tool_that_changes_its_description(one):
    lines = []
    servers = one(hostile("notices"), on_change=lines.append)
    before = servers.tools[0]
    assert before.description.endswith("[cut here: 10,000 more characters]")
    call(servers, "notices.go")
    wait_for(lambda: servers.tools[0].description == "poisoned")
    assert lines == ["MCP server notices changed its tools: 1 now"]


def test_pages_are_followed_and_have_an_end(one):
    servers = one(hostile("pages"), hostile("endless"))
    assert [tool.key for tool in servers.tools[:4]] == ["pages.t0", "pages.same", "pages.t1", "pages.t2"]
    assert servers.statuses[1].tools == 100


def test_tools_that_need_tasks_are_not_offered(one):
    servers = one(hostile("tasks"))
    assert [tool.name for tool in servers.tools] == ["plain", "may", "never"]
    assert call(servers, "tasks.may").text == "ok"


def test_a_server_that_will_not_stop_is_stopped(one):
    servers = one(hostile("stays"))
    begin = time.monotonic()
    servers.close()
    assert time.monotonic() - begin < 30
    assert servers.tools == []
    with pytest.raises(ToolError, match="were not started"):
        servers.prompt("stays", "x")


def test_a_server_that_does_not_care_dies_with_a_killed_program(tmp_path):
    code = f"""
import sys, time
from mlx_qwen3.tools.mcp import MCPServers, ServerConfig
servers = MCPServers([ServerConfig("stays", sys.executable, ({str(SERVERS / "hostile.py")!r}, "stays"))],
                     log_folder=__import__("pathlib").Path({str(tmp_path)!r}))
servers.start()
print("ready", flush=True)
time.sleep(600)
"""
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "ready\n"
    children = psutil.Process(program.pid).children()
    assert any("hostile.py" in " ".join(child.cmdline()) for child in children)
    program.kill()
    program.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert (tmp_path / "stays.log").stat().st_mode & 0o777 == 0o600


def test_calls_after_closing_say_so(one):
    servers = one(hostile("good"))
    tool = servers.tools[0]
    servers.close()
    servers.close()
    assert asyncio.run(tool.call({})) == ToolOutput("The MCP server good was stopped.", is_error=True)


@pytest.mark.parametrize("name", ["MCPServers", "ServerStatus", "PromptInfo", "ResourceInfo"])
def test_without_the_sdk_one_line_says_what_to_install(name):
    code = f"import sys; sys.modules['mcp'] = None; from mlx_qwen3.tools.mcp import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert "ToolError: MCP servers need the `mcp` package: " in done.stderr


def test_without_the_sdk_a_configuration_can_be_read(tmp_path):
    file = tmp_path / "mcp.json"
    file.write_text('{"mcpServers": {"a": {"command": "x"}}}')
    code = (
        "import sys; sys.modules['mcp'] = None\n"
        "from mlx_qwen3.tools import mcp\n"
        "from mlx_qwen3.tools.mcp import ServerConfig, load_config\n"
        f"assert load_config({str(file)!r}) == [ServerConfig('a', 'x')]\n"
        "assert 'MCPServers' in dir(mcp) and not hasattr(mcp, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stderr == ""


def test_importing_the_package_does_not_import_the_sdk():
    code = "import sys, mlx_qwen3.tools.mcp; sys.exit('mcp' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("configs", [5, ["files"], ServerConfig("a", "x"), None])
def test_what_is_no_configuration_is_refused(configs):
    with pytest.raises(ToolError, match="as load_config returns them"):
        MCPServers(configs)

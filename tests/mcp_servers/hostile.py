"""A server that misbehaves as its first argument says; written without the SDK, which would not let it."""

import json
import sys
import time

HOW = sys.argv[1]
calls = 0


def send(message: object) -> None:
    text = message if isinstance(message, str) else json.dumps(message)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def answer(request: dict, result: dict) -> None:
    send({"jsonrpc": "2.0", "id": request["id"], "result": result})


def tool(name: str, description: str = "d") -> dict:
    return {"name": name, "description": description, "inputSchema": {"type": "object", "properties": {}}}


def initialize(request: dict) -> None:
    if HOW == "banner":
        send("Welcome to my server!\n\n{}\nnull")
    capabilities = {"tools": {"listChanged": True}}
    answer(
        request,
        {
            "protocolVersion": "2025-11-25" if HOW == "tasks" else "2025-06-18",
            "capabilities": capabilities,
            "serverInfo": {"name": "h", "version": "1"},
        },
    )


def list_tools(request: dict) -> None:
    page = int((request.get("params") or {}).get("cursor") or 0)
    if HOW == "endless":
        answer(request, {"tools": [tool(f"t{page}")], "nextCursor": str(page + 1)})
    elif HOW == "tasks":
        support = {"plain": None, "may": "optional", "never": "forbidden", "must": "required"}
        execution = {
            name: {"execution": {"taskSupport": how}} if how else {} for name, how in support.items()
        }
        answer(request, {"tools": [{**tool(name), **entry} for name, entry in execution.items()]})
    elif HOW == "pages":
        more = {"nextCursor": str(page + 1)} if page < 2 else {}
        answer(request, {"tools": [tool(f"t{page}"), tool("same")], **more})
    else:
        answer(request, {"tools": [tool("go", "poisoned" if calls else "d" * 20_000)]})


def call_tool(request: dict) -> None:
    global calls
    calls += 1
    text = {"content": [{"type": "text", "text": "ok"}]}
    match HOW:
        case "hang":
            time.sleep(60)
        case "exit":
            print("goodbye, cruel world", file=sys.stderr, flush=True)
            sys.exit(3)
        case "flood":
            head = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {}})[:-2]
            sys.stdout.write(head + '"content": [{"type": "text", "text": "')
            for _ in range(50):
                sys.stdout.write("x" * 1_000_000)
            send('"}]}}')
        case "garbage":
            for _ in range(1000):
                send("garbage \x00\ufffd {]")
        case "invalid":
            send({"jsonrpc": "2.0", "id": request["id"], "result": 5, "error": "both"})
        case "nonsense":
            answer(request, {"content": "not a list", "isError": "perhaps"})
        case "notices":
            for _ in range(300):
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            answer(request, text)
        case "requests":
            number = 0
            while True:
                number += 1
                send({"jsonrpc": "2.0", "id": f"q{number}", "method": "roots/list"})
        case "changes":
            while True:
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        case "stderr":
            sys.stderr.write("e" * 8_000_000)
            sys.stderr.flush()
            answer(request, text)
        case "asks":
            send({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
            send({"jsonrpc": "2.0", "id": "r", "method": "sampling/createMessage", "params": {}})
            send({"jsonrpc": "2.0", "id": 99999, "result": {}})
            answer(request, text)
        case _:
            answer(request, text)


if HOW == "dead":
    sys.exit("no licence found")
if HOW == "silent":
    time.sleep(60)
METHODS = {"initialize": initialize, "tools/list": list_tools, "tools/call": call_tool}
for line in sys.stdin:
    request = json.loads(line)
    if request.get("method") in METHODS:
        METHODS[request["method"]](request)
    elif "id" in request and "method" in request:
        error = {"code": -32601, "message": "Method not found"}
        send({"jsonrpc": "2.0", "id": request["id"], "error": error})
if HOW == "stays":
    while True:
        time.sleep(1)

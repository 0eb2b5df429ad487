"""A server whose answers are spelled as its first argument says; over HTTP if a port is the second."""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOW = sys.argv[1]
TEXTS = {
    "lone": rb"caf\ud83d and \ud83e\udd9c and \\ud83d",
    "low": rb"\udc00\ud83d\ud83d\udc00",
    "raw": b"caf\xe9 \xed\xa0\xbd",
}
FLOOD = b"x" * 9_000_000


def text_result(text: bytes) -> bytes:
    return b'{"content": [{"type": "text", "text": "' + text + b'"}]}'


def result_of(request: dict) -> bytes:
    text = TEXTS.get(HOW, b"ok")
    if request["method"] == "initialize":
        info = {"name": "s", "version": "1"}
        capabilities = {"tools": {}, "prompts": {}, "resources": {}}
        return json.dumps(
            {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
        ).encode()
    if request["method"] == "tools/list":
        schema = b'{"type": "object", "description": "' + text + b'"}'
        return b'{"tools": [{"name": "go", "description": "' + text + b'", "inputSchema": ' + schema + b"}]}"
    if request["method"] == "prompts/list":
        return b'{"prompts": [{"name": "p", "description": "' + text + b'"}]}'
    if request["method"] == "resources/list":
        return b'{"resources": [{"name": "r", "uri": "memo://r", "description": "' + text + b'"}]}'
    if HOW.startswith("image"):
        data = base64.b64encode(bytes(int(HOW.removeprefix("image ")))).decode()
        return json.dumps({"content": [{"type": "image", "mimeType": "image/png", "data": data}]}).encode()
    return text_result(FLOOD if "flood" in HOW and "request" not in HOW else text)


def answer(request: dict) -> bytes:
    key, result = json.dumps(request["id"]).encode(), result_of(request)
    is_call = request["method"] == "tools/call"
    if HOW.startswith("last"):  # as the TypeScript SDK writes it
        result = b"5" if HOW == "last invalid" and is_call else result
        return b'{"result":' + result + b',"jsonrpc":"2.0","id":' + key + b"}"
    if HOW == "end flood":
        return b'{"jsonrpc":"2.0","result":' + result + b', "id": ' + key + b" }"
    if HOW == "middle flood" and is_call:
        return b'{"result":' + result + b',"id":' + key + b',"more":"' + b"y" * 1000 + b'"}'
    if HOW == "batch":
        return (
            b'[{"jsonrpc":"2.0","method":"notifications/x"},{"jsonrpc":"2.0","id":'
            + key
            + b',"result":'
            + result
            + b"}]"
        )
    if HOW == "null" and is_call:
        return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'
    if HOW == "cut" and is_call:
        return b'{"jsonrpc":"2.0","result":{"content":[{"type":"te'
    if HOW == "request flood" and is_call:
        flood = b'{"method":"x","params":"' + FLOOD + b'","jsonrpc":"2.0","id":' + key + b"}\n"
        return flood + b'{"jsonrpc":"2.0","id":' + key + b',"result":' + result + b"}"
    return b'{"jsonrpc":"2.0","id":' + key + b',"result":' + result + b"}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "id" not in request:
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if request["method"] == "server/discover":
            error = b'"error":{"code":-32601,"message":"no"}}'
            body = b'{"jsonrpc":"2.0","id":' + json.dumps(request["id"]).encode() + b"," + error
            kind = "application/json"
        elif self.path == "/events":
            body, kind = b"event: message\ndata: " + answer(request) + b"\n\n", "text/event-stream"
        else:
            body, kind = answer(request), "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), 7 if len(body) < 1000 else 100_000):  # cuts escapes in two
            self.wfile.write(body[start : start + (7 if len(body) < 1000 else 100_000)])
            self.wfile.flush()

    def do_GET(self) -> None:
        self.send_error(405)

    def log_message(self, *args: object) -> None:
        pass


if len(sys.argv) > 2:
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "server/discover":
        error = {"code": -32601, "message": "Method not found"}
        line_out = json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode()
    elif "id" in message and "method" in message:
        line_out = answer(message)
    else:
        continue
    sys.stdout.buffer.write(line_out + b"\n")
    sys.stdout.buffer.flush()

"""An MCP server with a clock, for the command lines. It notes each use in the file that it is given."""

import json
import sys
from pathlib import Path

from task import DESCRIPTION, PARAMETERS, TIME

TOOL = {
    "name": "get_time",
    "description": DESCRIPTION,
    "inputSchema": PARAMETERS,
    "annotations": {"readOnlyHint": True},
}


def answer(method: str, params: dict) -> dict:
    if method == "initialize":
        versions = {"protocolVersion": params["protocolVersion"]}
        return {**versions, "capabilities": {"tools": {}}, "serverInfo": {"name": "clock", "version": "1"}}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        with Path(sys.argv[1]).open("a", encoding="utf-8") as log:
            log.write(json.dumps(params) + "\n")
        return {"content": [{"type": "text", "text": TIME}]}
    return {}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        result = answer(asked["method"], asked.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)

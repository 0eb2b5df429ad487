"""What every client asks the server: a sum, the time by a tool, an answer in a schema, and what must fail.

The programs beside this one need no package of ours: each runs with its client's Python. Given the URL
of a server with the demo, it prints a line for each thing that worked, and fails at the first that did not.
"""

import json
import sys
import time
import urllib.request

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
API = f"{URL}/v1"
SUM, RESULT = "what is 47+85?", "132"
QUESTION, TIME = "what time is it in Paris?", "14:05"
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 999}},
    "required": ["sum"],
    "additionalProperties": False,
}
LONG = "Say hello in three languages, then once more, and again."
ENDLESS = {"min_tokens": 12_000}  # a field of ours: an answer that is sure to go on when its client leaves


def get_time(city: str) -> str:
    """Get the current time in a city"""
    return f"{TIME}" if "paris" in city.lower() else f"unknown city {city}"


PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city"}},
    "required": ["city"],
}
DESCRIPTION = "Get the current time in a city"


def is_idle(seconds: float = 20) -> bool:
    """Whether the server soon generates nothing: it stops when a client leaves."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{URL}/status", timeout=seconds) as response:
            if not json.load(response)["requests"]:
                return True
        time.sleep(0.05)
    return False


def check(name: str, passed: object, shown: object = "") -> None:
    """Print that `name` worked, or leave with what was got instead."""
    if not passed:
        sys.exit(f"FAILED {name}: {shown!r}")
    print(f"ok {name}", flush=True)

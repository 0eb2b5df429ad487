"""Mutations of files: what a careless program, a cut download or an attacker makes of them.

Everything is drawn from one `random.Random`, so a seed repeats a mutation.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 3, 7, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63)),
    *(0.5, -0.0, 1e-320, 1e38, 1e308, float("nan"), float("inf"), float("-inf"), 10**30, 10**400),
]
TEXTS = [
    *("", " ", "\x00", "\x1b]52;c;ZXZpbA==\x07", "\x9b31m", "\u202e\u2066", "\ufeff", "\ud83d", "\U000e0041"),
    *("../../etc/passwd", "/dev/zero", "<|im_end|>", "{{ 9 ** 9 ** 9 }}", "a" * 5000, "\n" * 20, "NaN"),
    *("bfloat16", "yarn", "null", "é" * 300, "%s%n", "${HOME}", "\u200d\ufe0f" * 5),
]
VALUES: list[Any] = [None, True, False, [], {}, [[]], {"": None}, [None] * 1000]
BYTES = [b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"{", b"]", b'"', b"\x1b[2J", b"\xed\xa0\x80"]


def mutate(data: bytes, kind: str, random: random.Random) -> bytes:
    """`data`, a file of a kind of MUTATIONS, with one to four mutations."""
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        if random.random() < 0.3:
            data = _bytes(data, random)
        else:
            data = MUTATIONS[kind](data, random)
    return data


def _bytes(data: bytes, random: random.Random) -> bytes:
    """Bytes changed without regard to what they mean."""
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice([1, 1, 8, 100, 10_000]))
    match random.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + random.choice(BYTES) + data[at:]
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:at] + bytes(random.randrange(256) for _ in range(end - at)) + data[end:]
        case 4:
            return data[:at] + data[at:end] * random.choice([2, 2, 3, 50]) + data[end:]
        case 5:
            return data[:at] + random.choice(BYTES) * random.choice([1, 1000, 100_000]) + data[end:]
        case _:
            return b""


def _json(data: bytes, random: random.Random) -> bytes:
    """A JSON file with one value or key changed."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, random)
    if random.random() < 0.04:
        depth = random.choice([50, 500, 5000, 100_000])
        return random.choice([b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth])
    places = list(_places(value))
    if not places:
        return json.dumps(_other(value, random)).encode()
    holder, key = random.choice(places)
    match random.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(TEXTS)] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case _:
            holder[key] = _other(holder[key], random)
    try:
        return json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # 10**400 has too many digits for some Pythons
        return data


def _places(value: Any, limit: int = 3000) -> list[tuple[Any, Any]]:
    """All (container, key) in a JSON value, up to a limit."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(places) < limit:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in list(keys)[:200]:
            places.append((item, key))
            waiting.append(item[key])
    return places


def _other(value: Any, random: random.Random) -> Any:
    """Another value in place of `value`: mostly of its kind, but wrong."""
    if isinstance(value, int | float) and random.random() < 0.6:
        return random.choice([*NUMBERS, value + 1, value - 1, value * 2, -value, value * 1000])
    if isinstance(value, str) and random.random() < 0.6:
        return random.choice([*TEXTS, value + "x", value[:-1], value.upper(), value * 3])
    return random.choice([*VALUES, *NUMBERS, *TEXTS])


def _lines(data: bytes, random: random.Random) -> bytes:
    """JSON lines with one line changed."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = random.choice([_json, _bytes])(lines[at], random)
    return b"\n".join(lines)


def _safetensors(data: bytes, random: random.Random) -> bytes:
    """A safetensors file with its header changed."""
    length = min(int.from_bytes(data[:8], "little"), len(data))
    header, body = data[8 : 8 + length], data[8 + length :]
    if random.random() < 0.15:
        wrong = random.choice([0, 1, length + 1, 2**63, 2**64 - 1])
        return wrong.to_bytes(8, "little") + header + body
    header = _json(header, random)
    return len(header).to_bytes(8, "little") + header + body


def _binary(data: bytes, random: random.Random) -> bytes:
    """A binary file with one number in its first bytes changed."""
    if len(data) < 16:
        return _bytes(data, random)
    at = random.randrange(min(len(data) - 8, 3000))
    form, number = random.choice([("<I", random.choice([0, 1, 8, 9, 2**31, 2**32 - 1])), ("<Q", random.choice(
        [0, 1, 2**31, 2**40, 2**63, 2**64 - 1]))])  # fmt: skip
    packed = struct.pack(form, number)
    return data[:at] + packed + data[at + len(packed) :]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json,
    "lines": _lines,
    "safetensors": _safetensors,
    "gguf": _binary,
    "text": _bytes,
}

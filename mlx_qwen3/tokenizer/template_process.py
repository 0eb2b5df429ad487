"""The process that runs one stranger's chat template: it may take little time and memory, and write no file.

isolated_template.py starts it and speaks with it over stdin and stdout. A message is a JSON object, behind
its length in eight bytes. The first request is `{"source": ...}`, each later one `{"variables": ...}`.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mlx_qwen3.errors import MessageError, TemplateError

LENGTH = struct.Struct(">Q")
BASE_BYTES, BYTES_PER_BYTE = 128 * 2**20, 24
"""The memory that a request may take: so much, and so much for each byte of the request."""
BASE_SECONDS, BYTES_PER_SECOND = 0.6, 1_000_000
"""The processor time that a request may take: so much, and a second for so many bytes of the request."""
BASE_ANSWER_BYTES, ANSWER_BYTES_PER_BYTE = 16 * 2**20, 16


def memory_limit(request_bytes: int) -> int:
    """Bytes that may be taken for a request of so many bytes, beside those of the idle process."""
    return BASE_BYTES + BYTES_PER_BYTE * request_bytes


def seconds_limit(request_bytes: int) -> float:
    """Processor time for a request of so many bytes."""
    return BASE_SECONDS + request_bytes / BYTES_PER_SECOND


def answer_limit(request_bytes: int) -> int:
    """The longest answer, in bytes, to a request of so many bytes."""
    return BASE_ANSWER_BYTES + ANSWER_BYTES_PER_BYTE * request_bytes


def main() -> None:
    """Answer requests until stdin ends. Ends by a signal where a request takes too much."""
    from mlx_qwen3.tokenizer.jinja_sandbox import CompiledTemplate

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the program
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    idle_bytes = _limit_process()
    template: CompiledTemplate | None = None
    _send(answers, b"{}")  # ready
    while (header := requests.read(LENGTH.size)) and len(header) == LENGTH.size:
        size = LENGTH.unpack(header)[0]
        _limit(resource.RLIMIT_AS, idle_bytes + memory_limit(size) if idle_bytes else None)
        signal.setitimer(signal.ITIMER_PROF, seconds_limit(size))
        try:
            request = json.loads(requests.read(size))
            if template is None:
                template = CompiledTemplate(request["source"])
                answer: dict[str, Any] = {
                    "variables": sorted(template.variables),
                    "strings": sorted(template.strings),
                }
            else:
                answer = {"text": template.render(request["variables"])}
        except MessageError as error:
            answer = {"refused": str(error)}
        except TemplateError as error:
            answer = {"failed": str(error)}
        data = json.dumps(answer).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, data if len(data) <= answer_limit(size) else b'{"too_long": true}')


def _send(answers: BinaryIO, data: bytes) -> None:
    answers.write(LENGTH.pack(len(data)) + data)
    answers.flush()


def _limit_process() -> int | None:
    """Set what holds for every request. Returns the size of the idle process; None where it is not known."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_STACK, 8 * 2**20)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # macOS, where the kernel does not hold a process to RLIMIT_AS either
        return None
    return pages * resource.getpagesize()


def _limit(kind: int, value: int | None) -> None:
    """Set the soft limit, but never above the one that was given to this process."""
    if value is not None:
        hard = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()

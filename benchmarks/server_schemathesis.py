"""Requests made by schemathesis from /openapi.json, valid and broken: what does the server answer against it?

    python -m benchmarks.server_schemathesis [--examples 200] [--phases coverage,fuzzing] [--seed 0]

Needs schemathesis. It checks that there is no 5xx, that statuses, types and bodies of answers are those of
the document, that what the document forbids is refused, and that the packages of OpenAI and Anthropic can
read what comes (`benchmarks/server_schemathesis_check.py`). Ends with 1 if something is found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from benchmarks.server_processes import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "missing_required_header",
    "types_of_clients",
)
ROOT = Path(__file__).parents[1]
# A short context, so that answers without a limit of their own end soon.
CONTEXT = 256


def counts(metrics: str) -> str:
    """How many requests of each protocol got which status."""
    return "\n".join(line for line in metrics.splitlines() if line.startswith("mlx_qwen3_requests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="for each of some 20 operations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phases", default="coverage,fuzzing", help="of schemathesis")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    demo = Path(resolve("demo"))
    with (
        running("mlx-qwen3", demo, "--context", str(CONTEXT)) as server,
        tempfile.TemporaryDirectory() as empty,
    ):
        url = server.url
        arguments = ["--checks", ",".join(CHECKS), "--max-examples", str(options.examples)]
        arguments += ["--seed", str(options.seed), "--workers", str(options.workers), "--continue-on-failure"]
        arguments += ["--request-timeout", "120", "--generation-database", "none", "--no-color"]
        arguments += ["--suppress-health-check", "all", "--no-shrink", "--phases", options.phases]
        program = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *arguments]
        hooks = str(ROOT / "benchmarks" / "server_schemathesis_check.py")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": hooks}
        code = subprocess.run(program, cwd=empty, env=environment, check=False).returncode
        print(counts(httpx.get(f"{url}/metrics", timeout=60).text))
        status = httpx.get(f"{url}/status", timeout=60).json()
        memory = {name: f"{value / 1e6:.0f} MB" for name, value in status["memory"].items()}
        print(f"requests still running: {len(status['requests'])}; memory: {memory}")
    sys.exit(code or bool(status["requests"]))


if __name__ == "__main__":
    main()

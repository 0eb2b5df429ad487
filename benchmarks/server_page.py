"""How soon the built-in page is painted in headless Chromium, beside a page of one line.

    python -m benchmarks.server_page [--loads 15] [--pictures FOLDER]

Both come from this machine, in turn, and are loaded anew each time. First paint is the browser's own figure
(first contentful paint), from the start of the navigation; what the page of one line takes, none can save.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.server_processes import running
from mlx_qwen3.checkpoint import resolve

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import Browser, chromium

TIMES = """
const paint = performance.getEntriesByName('first-contentful-paint')[0];
const load = performance.getEntriesByType('navigation')[0];
return paint && load.domContentLoadedEventEnd
  ? [load.responseStart, load.domContentLoadedEventEnd, paint.startTime] : null"""


class OneLine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><meta charset=utf-8><title>one line</title><p>one line"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def times(browser: Browser, address: str) -> list[float]:
    """Milliseconds until the answer begins, until the scripts have run, and until the first paint."""
    browser.open("about:blank")
    browser.open(address)
    while (found := browser.run(TIMES)) is None:
        pass
    return [float(value) for value in found]


def show(name: str, all_times: list[list[float]]) -> None:
    columns = list(zip(*all_times, strict=True))
    medians = [statistics.median(column) for column in columns]
    print(
        f"| {name} | {medians[0]:.0f} ms | {medians[1]:.0f} ms | {medians[2]:.0f} ms "
        f"| {min(columns[2]):.0f} to {max(columns[2]):.0f} ms |"
    )


def take_pictures(browser: Browser, address: str, folder: Path) -> None:
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(address)
        browser.picture(folder / f"page-{scheme}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--loads", type=int, default=15)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    line = ThreadingHTTPServer(("127.0.0.1", 0), OneLine)
    threading.Thread(target=line.serve_forever, daemon=True).start()
    with (
        tempfile.TemporaryDirectory() as profile,
        running("mlx-qwen3", Path(resolve("demo"))) as server,
        chromium(Path(profile)) as browser,
    ):
        addresses = {
            "a page of one line": f"http://127.0.0.1:{line.server_port}/",
            "our page": f"{server.url}/",
        }
        found: dict[str, list[list[float]]] = {name: [] for name in addresses}
        for number in range(options.loads + 1):
            for name, address in addresses.items():
                taken = times(browser, address)
                if number:  # the first load of each starts the browser's processes
                    found[name].append(taken)
        print(
            "| medians | answer begins | scripts have run | first paint | from, to |\n|---|---|---|---|---|"
        )
        for name, all_times in found.items():
            show(name, all_times)
        if options.pictures is not None:
            take_pictures(browser, addresses["our page"], options.pictures)
    line.shutdown()


if __name__ == "__main__":
    main()

"""A hub of our own: the few answers of huggingface.co that a download asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from tiny_checkpoints import DENSE, write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder as repository `org/tiny`, and notes which were asked for.

    downloads: names of files sent whole, in order. broken: files of which only the first half is sent.
    ranges: where files began that were asked for from the middle. pause: seconds between two pieces.
    """

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fetched: set[str] = set()
        self.downloads: list[str] = []
        self.broken: set[str] = set()
        self.ranges: list[int] = []
        self.pause = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "gated" in path:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "org/tiny" not in path:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif match := re.fullmatch(r"/org/tiny/resolve/\w+/(.+)", path):
            self.file(match[1])
        elif "/tree/" in path:
            self.answer(200, json.dumps([self.entry(file) for file in self.server.folder.iterdir()]).encode())
        else:
            self.answer(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": []}).encode())

    def entry(self, file: Path) -> dict[str, object]:
        size = file.stat().st_size
        entry = {"type": "file", "path": file.name, "size": size, "oid": self.etag(file)}
        if file.suffix == ".safetensors":
            entry["lfs"] = {"oid": self.etag(file), "size": size, "pointerSize": 130}
        return entry

    def etag(self, file: Path) -> str:
        return hashlib.new(
            "sha256" if file.suffix == ".safetensors" else "sha1", file.read_bytes()
        ).hexdigest()

    def file(self, name: str) -> None:
        content = (self.server.folder / name).read_bytes()
        headers = {"ETag": f'"{self.etag(self.server.folder / name)}"', "X-Repo-Commit": COMMIT}
        if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):  # a look at a header
            self.answer(206, content[int(part[1]) : int(part[2]) + 1], headers)
            return
        status = 200
        if part := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            self.server.ranges.append(int(part[1]))
            content, status = content[int(part[1]) :], 206
        self.server.fetched.add(name)
        if self.command == "GET":
            self.server.downloads.append(name)
        if name in self.server.broken:
            self.answer(status, content[: len(content) // 2], headers | {"Content-Length": str(len(content))})
            self.close_connection = True
        else:
            self.answer(status, content, headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_slowly(body)

    def send_slowly(self, body: bytes) -> None:
        pieces = (
            [body[at : at + 10_000] for at in range(0, len(body), 10_000)] if self.server.pause else [body]
        )
        with suppress(OSError):  # the other side has left
            for piece in pieces:
                self.wfile.write(piece)
                time.sleep(self.server.pause)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "repository"
    write_checkpoint(folder, DENSE)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "modeling.py").write_text("raise SystemExit")
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()

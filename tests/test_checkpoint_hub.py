"""Downloading, against a small hub of our own: what is asked for, what is kept, what is said."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from tiny_checkpoints import DENSE, logits, write_checkpoint

from mlx_qwen3.checkpoint import load_model, resolve
from mlx_qwen3.errors import ModelNotFoundError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder as repository `org/tiny`, and notes which were asked for."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fetched: set[str] = set()

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

    def entry(self, file: Path) -> dict:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": self.etag(file)}

    def etag(self, file: Path) -> str:
        return hashlib.sha1(file.read_bytes()).hexdigest()

    def file(self, name: str) -> None:
        self.server.fetched.add(name)
        file = self.server.folder / name
        self.answer(200, file.read_bytes(), {"ETag": f'"{self.etag(file)}"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
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


def test_downloads_what_a_model_needs_and_nothing_else(hub, capfd):
    steps: list[tuple[int, int]] = []
    folder = resolve("org/tiny", lambda done, total: steps.append((done, total)))
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert {file.name for file in folder.iterdir()} == hub.fetched == wanted
    assert max(done for done, _ in steps) == sum((folder / name).stat().st_size for name in wanted)
    assert capfd.readouterr() == ("", "")


def test_a_downloaded_model_loads_without_the_hub(hub, monkeypatch):
    expected = logits(load_model("org/tiny"))
    hub.fetched.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert (logits(load_model("org/tiny")) == expected).all()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert (logits(load_model("org/tiny")) == expected).all()
    assert hub.fetched == set()


def test_a_half_downloaded_model_is_no_model(hub, monkeypatch):
    folder = resolve("org/tiny")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="only partly downloaded"):
        resolve("org/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert (resolve("org/tiny") / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/gated", "org/gated is gated: accept its terms on its page, then log in"),
        ("org/nothing", "no repository org/nothing on the hub: check its name"),
    ],
)
def test_what_is_said_of_a_repository_that_is_out_of_reach(hub, name, message):
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_typo_is_suggested(hub, tmp_path, monkeypatch):
    (tmp_path / "models" / "qwen-14b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"did you mean qwen-14b\?"):
        resolve("models/qwen-14")


def test_offline_without_a_cache(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="not downloaded and the hub cannot be reached"):
        resolve("14b")

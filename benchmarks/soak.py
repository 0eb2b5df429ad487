"""Thirty sessions, hostile MCP servers and random kills: what is stuck, lost or growing.

    python -m benchmarks.soak --minutes 30

One engine runs the demo with a template that is not one of Qwen3's own, so it is rendered in a process.
Each session, on a thread of its own, sends turns, cancels some, calls tools of servers that hang, flood,
print garbage or exit, and saves and reads its conversation. Meanwhile random child processes are killed
(servers and the template's), and chats of other programs that share one conversation, at random moments.
Ends with 1 if a session made no progress for ten minutes, a conversation was lost, or memory grew.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from mlx_qwen3 import Engine, Session
from mlx_qwen3.checkpoint.locate import DEMO_FOLDER
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import EngineError, Qwen3Error
from mlx_qwen3.events import Done, ToolCall
from mlx_qwen3.tools import Decision, ToolBox
from mlx_qwen3.tools.mcp import MCPServers, ServerConfig

SERVER = Path(__file__).parent.parent / "tests" / "mcp_servers" / "hostile.py"
HOWS = ("good", "hang", "exit", "flood", "garbage", "invalid", "requests", "changes", "stderr", "asks")
PROMPTS = (
    "hi",
    "what is 47+85?",
    "what is 12-5?",
    "who are you?",
    "\x1b[2J <|im_end|>",
    "a" * 3000,
    "é" * 500,
)
STUCK_SECONDS = 600.0  # a turn of thirty, on a machine that does other work too


class Soak:
    """The engine, its sessions and what became of them."""

    def __init__(self, folder: Path, seconds: float, sessions: int):
        self.folder, self.end = folder, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.progress = [time.monotonic()] * sessions
        model = folder / "model"
        shutil.copytree(DEMO_FOLDER, model, ignore=shutil.ignore_patterns("draft"))
        template = model / "chat_template.jinja"
        template.write_text(template.read_text() + "{# not one of Qwen3's own #}")
        self.servers = MCPServers(
            [ServerConfig(how, sys.executable, (str(SERVER), how), timeout=3.0) for how in HOWS],
            log_folder=folder / "logs",
        )
        self.servers.start()
        self.engine = Engine(model)

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.end

    def run(self) -> None:
        workers = [
            threading.Thread(target=self._guarded, args=(self._talk, number), daemon=True)
            for number in range(len(self.progress))
        ]
        others = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (self._kill_children, self._kill_chats)
        ]
        for thread in workers + others:
            thread.start()
        memory = self._watch()
        for number, thread in enumerate(workers):
            thread.join(STUCK_SECONDS)
            if thread.is_alive():
                self.faults.append(f"session {number} did not end")
        for thread in others:
            thread.join(60)
        self.engine.close()
        self.servers.close()
        self._report(memory)

    def _guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001  that is what is looked for
            self.faults.append(f"{work.__name__}{arguments}: {type(error).__name__}: {error}")

    def _talk(self, number: int) -> None:
        """One session: turns, cancels, calls of tools, and its conversation saved and read."""
        pick = random.Random(number)
        box = ToolBox(sources=[self.servers])
        # The demo's context is too short for so many tools: they are called beside its turns.
        session = self.engine.session(thinking=False, sampling={"max_tokens": 24})
        path = self.folder / f"session {number}.json"
        while not self.is_over:
            try:
                self._turn(session, pick, path)
                if pick.random() < 0.2:
                    self._call_tool(box, pick)
            except EngineError:
                raise
            except Qwen3Error as error:  # a server or the template's process was killed
                self.counts[f"{type(error).__name__}"] += 1
            if len(session.messages) > 8 or pick.random() < 0.05:
                session.clear()
            self.progress[number] = time.monotonic()

    def _turn(self, session: Session, pick: random.Random, path: Path) -> None:
        before = len(session.messages)
        is_cancelled = pick.random() < 0.3
        if is_cancelled:
            timer = threading.Timer(pick.random(), session.cancel)
            timer.start()
        last = list(session.send(pick.choice(PROMPTS)))[-1]
        reason = last.finish_reason if isinstance(last, Done) else "none"
        self.counts["cancelled" if reason == "cancelled" else "turns"] += 1
        if reason == "none":
            self.faults.append("a turn ended without Done")
        if reason not in ("cancelled", "tool_calls") and len(session.messages) < before + 2:
            self.faults.append("a turn that ended is not in the conversation")
        if session.messages:
            session.save(path)
            if Conversation.load(path)[0].messages != session.messages:
                self.faults.append(f"{path.name} is not what was saved")

    def _call_tool(self, box: ToolBox, pick: random.Random) -> None:
        names = sorted(box.names)
        if names:
            call = ToolCall(0, pick.choice(names), {}, "")
            result = box.run([call], lambda _: Decision(True))[0]
            self.counts["failed calls" if result.is_error else "calls"] += 1

    def _kill_children(self) -> None:
        """Kill a random child every few seconds, and start failed servers again."""
        pick = random.Random("kills")
        while not self.is_over:
            time.sleep(pick.uniform(3, 20))
            children = [child for child in psutil.Process().children() if b"chat" not in _command(child)]
            if children:
                with_suppressed(pick.choice(children).kill)
                self.counts["children killed"] += 1
            for status in self.servers.statuses:
                if status.state == "failed" and pick.random() < 0.3:
                    self.servers.restart(status.name)

    def _kill_chats(self) -> None:
        """Chats of other programs that continue one conversation, each killed at a random moment."""
        pick, home = random.Random("chats"), self.folder / "home"
        home.mkdir()
        command = [sys.executable, "-m", "mlx_qwen3", "chat", "--model", "demo", "--no-think", "-p"]
        environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
        place = home / "data" / "mlx-qwen3" / "conversations"
        place.mkdir(parents=True)
        Conversation([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]).save(
            place / "shared.json", {}
        )
        while not self.is_over:
            before = {path.name: said(path) for path in place.glob("*.json")}
            chats = [
                subprocess.Popen([*command, "hi", "--resume", "--max-tokens", "8"], env=environment,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for _ in range(2)
            ]  # fmt: skip
            time.sleep(pick.uniform(0, 8))
            for chat in chats:
                if pick.random() < 0.5:
                    chat.send_signal(signal.SIGKILL)
                    self.counts["chats killed"] += 1
            for chat in chats:
                chat.wait()
            for name, count in before.items():
                if said(place / name) < count:
                    self.faults.append(f"{name} had {count} messages, now {said(place / name)}")

    def _watch(self) -> list[float]:
        """Resident memory over time, in MB, until the end; notes sessions that make no progress."""
        memory, stuck = [], set()
        while not self.is_over:
            time.sleep(10)
            memory.append(psutil.Process().memory_info().rss / 1e6)
            for number, at in enumerate(self.progress):
                if time.monotonic() - at > STUCK_SECONDS and number not in stuck:
                    stuck.add(number)
                    self.faults.append(f"session {number} made no progress for {STUCK_SECONDS:.0f} s")
            if len(memory) % 6 == 0:
                print(f"{memory[-1]:,.0f} MB, {dict(self.counts)}, {len(self.faults)} faults", flush=True)
        return memory

    def _report(self, memory: list[float]) -> None:
        third = max(1, len(memory) // 3)
        middle, last = max(memory[third : 2 * third] or memory), max(memory[-third:])
        if last > 1.2 * middle + 30:
            self.faults.append(f"memory grew from {middle:,.0f} to {last:,.0f} MB")
        print(f"memory: at most {middle:,.0f} MB in the middle third, {last:,.0f} MB in the last")
        print(dict(self.counts))
        for fault in self.faults[:20]:
            print("FAULT", fault)
        print(f"{len(self.faults)} faults")


def said(path: Path) -> int:
    """How many messages the conversation at `path` has."""
    return len(Conversation.load(path)[0].messages)


def with_suppressed(work: Any) -> None:
    """Do `work`, unless its process is gone."""
    try:
        work()
    except psutil.Error:
        return


def _command(process: psutil.Process) -> bytes:
    try:
        return " ".join(process.cmdline()).encode()
    except psutil.Error:
        return b"chat"  # gone: not to be killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sessions", type=int, default=30)
    options = parser.parse_args()
    # Caches of ended conversations are kept as far as memory goes; with all of it, growth would be no leak.
    os.environ.setdefault("MLX_QWEN3_MEMORY", "600MB")
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.minutes * 60, options.sessions)
        soak.run()
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()

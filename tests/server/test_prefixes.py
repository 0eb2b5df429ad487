"""Prefix reuse: what one request leaves for the next, in memory, on disk, and of what clients leave out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import LiveServer, live_server

from mlx_qwen3 import Engine
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.reuse.disk import DiskTier
from mlx_qwen3.server.reuse.prefixes import Held, PrefixStore
from mlx_qwen3.server.reuse.recall import KnownCall, Recall

SYSTEM = {"role": "system", "content": "You are a helpful assistant. " + "Be brief. " * 40}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> Iterator[Engine]:
    with Engine("demo") as loaded:
        yield loaded


@pytest.fixture
def store(demo: Engine) -> PrefixStore:
    return PrefixStore(demo, 10**9)


def fill(demo: Engine, held: Held, ids: list[int]) -> None:
    """Feed what the cache lacks of `ids`. On the engine's thread."""
    import mlx.core as mx

    feed = held.cache.begin(ids)
    mx.eval(demo.model(mx.array([feed]), held.cache.layers))
    held.cache.extend(feed)


def use(
    demo: Engine, store: PrefixStore, ids: list[int], anchor: int | None = None, scope: str = "a"
) -> tuple[int, int]:
    """A request with the prompt `ids`: the tokens that it found, and the caches that are idle after it."""

    def run() -> tuple[int, int]:
        held = store.take(ids, scope, demo.config)
        found = held.cache.reusable(ids)
        held.anchor = len(ids) if anchor is None else anchor
        fill(demo, held, ids)
        store.put(held)
        return found, store.stats().caches

    return demo.call(run)


def test_a_conversation_goes_on_in_its_own_cache(demo: Engine, store: PrefixStore) -> None:
    assert use(demo, store, list(range(300))) == (0, 1)
    assert use(demo, store, list(range(400))) == (300, 1)  # the same cache, longer
    # The template takes the end back: what the conversation is sure to begin with is still there.
    assert use(demo, store, [*range(350), 5, 6], anchor=340) == (350, 2)
    assert use(demo, store, [*range(345), 7], anchor=340) == (345, 2)  # in place, and not a third


def test_another_conversation_gets_a_copy_of_what_they_share(demo: Engine, store: PrefixStore) -> None:
    use(demo, store, list(range(300)))
    assert use(demo, store, [*range(200), 9, 9, 9]) == (200, 2)
    assert use(demo, store, list(range(310))) == (300, 2)  # the first one lost nothing
    assert store.stats().copied == 1


def test_an_idle_cache_takes_the_memory_of_its_tokens(demo: Engine, store: PrefixStore) -> None:
    for start in range(30):
        use(demo, store, list(range(start, start + 20)))
    stats = store.stats()
    per_token = demo.cache_nbytes(256) / 256  # caches grow in steps of 256 tokens
    assert stats.caches == 30
    assert stats.nbytes <= 1.01 * per_token * stats.tokens
    # It goes on as before, and what grew keeps what it grew to.
    assert use(demo, store, list(range(200))) == (20, 30)
    assert store.stats().nbytes <= 1.01 * per_token * (29 * 20 + 256)


def test_no_scope_sees_another(demo: Engine, store: PrefixStore) -> None:
    use(demo, store, list(range(300)), scope="ann")
    assert use(demo, store, list(range(300)), scope="bob")[0] == 0


def test_a_running_request_can_be_copied(demo: Engine, store: PrefixStore) -> None:
    def run() -> int:
        running = store.take(list(range(200)), "a", demo.config)
        fill(demo, running, list(range(200)))
        other = store.take([*range(150), 1], "a", demo.config)
        assert other.cache is not running.cache
        return len(other.cache.ids)

    assert demo.call(run) == 150


def test_caches_used_longest_ago_go_first(demo: Engine) -> None:
    store = PrefixStore(demo, 3 * demo.cache_nbytes(256))
    for start in (1000, 2000, 3000):
        use(demo, store, list(range(start, start + 200)))
    use(demo, store, list(range(1000, 1200)))  # used again
    use(demo, store, list(range(3800, 4000)))
    found = {start: use(demo, store, list(range(start, start + 210)))[0] for start in (3800, 1000, 2000)}
    assert found == {3800: 200, 1000: 200, 2000: 0}
    assert demo.call(lambda: store.stats().nbytes) <= store.limit


def test_many_short_conversations_do_not_pile_up(demo: Engine, store: PrefixStore) -> None:
    def run() -> int:
        for number in range(300):
            held = store.take([number, 1, 2], "a", demo.config)
            fill(demo, held, [number, 1, 2])
            store.put(held)
        return store.stats().caches

    assert demo.call(run) == 128


def test_scarce_memory_is_given_back(tmp_path: Path) -> None:
    """The engine's guard takes it from its pool, which is the store."""
    config = ServerConfig(cache_folder=tmp_path, least_saved_tokens=64, prepares=False)
    with live_server(config) as server:
        say(server, [SYSTEM, {"role": "user", "content": "hello"}], enable_thinking=False)
        assert server.store.stats().caches == 1
        server.engine.call(server.engine.guard.park_idle)
        assert (server.store.stats().caches, server.store.stats().saved) == (0, 1)
        again = say(server, [SYSTEM, {"role": "user", "content": "hello"}], enable_thinking=False)
        assert prefilled(again) <= 16


def test_what_memory_drops_comes_back_from_disk(demo: Engine, tmp_path: Path) -> None:
    disk = demo.call(lambda: DiskTier(demo, tmp_path, 10**9, least=50))
    store = PrefixStore(demo, demo.cache_nbytes(256), disk)
    first, second = list(range(1000, 1200)), list(range(2000, 2200))
    use(demo, store, first)
    use(demo, store, second)  # drives the first one out
    assert (disk.count, store.stats().caches) == (1, 1)
    assert use(demo, store, [*first, 1])[0] == 200
    assert store.stats().loaded == 1
    # Another process finds it, and a longer one replaces its beginning.
    later = demo.call(lambda: DiskTier(demo, tmp_path, 10**9, least=50))
    assert later.find([*first, 5], "a", demo.config, 64) is not None
    assert later.find([*first, 5], "b", demo.config, 64) is None
    demo.call(store.save_all)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == disk.count == 2
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_the_disk_has_a_limit_and_broken_files_are_passed_over(demo: Engine, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / ".x.safetensors.abc.part").write_bytes(b"left by a killed server")
    limit = 2 * demo.cache_nbytes(256) + 10_000
    disk = demo.call(lambda: DiskTier(demo, tmp_path, limit, least=50))
    assert not list(tmp_path.glob("*.part"))
    store = PrefixStore(demo, 0, disk)
    for start in range(0, 4000, 500):
        use(demo, store, list(range(start, start + 60)))
    assert 0 < disk.nbytes <= limit
    assert len(list(tmp_path.glob("*.safetensors"))) == disk.count
    kept = demo.call(lambda: disk.find(list(range(3500, 3560)), "a", demo.config, 40))
    assert kept is not None
    kept.path.write_bytes(kept.path.read_bytes()[:100])  # cut off behind our back
    assert use(demo, store, list(range(3500, 3565)))[0] == 0
    assert not kept.path.exists() or kept.path.stat().st_size > 100


def test_what_clients_leave_out_is_restored() -> None:
    recall = Recall()
    recall.add("k1", "ann", KnownCall("I look.", '{"city":  "Rome"}'))
    call = {"id": "toolu_k1", "type": "function", "function": {"name": "w", "arguments": {"city": "Rome"}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    [restored] = recall.restore([message], "ann")
    assert restored["reasoning_content"] == "I look."
    assert restored["tool_calls"][0]["function"]["arguments"] == '{"city":  "Rome"}'
    assert recall.restore([message], "bob") == [message]
    changed = {
        **message,
        "tool_calls": [{**call, "function": {"name": "w", "arguments": '{"city": "Oslo"}'}}],
    }
    assert recall.restore([changed], "ann")[0]["tool_calls"] == changed["tool_calls"]
    own = {**message, "reasoning_content": "Mine."}
    assert recall.restore([own], "ann")[0]["reasoning_content"] == "Mine."
    strange = [{"role": "assistant", "tool_calls": "x"}, {"role": "assistant", "tool_calls": [1, {"id": 2}]}]
    assert recall.restore(strange, "ann") == strange


def test_tools_in_another_order_are_the_same_tools() -> None:
    recall = Recall()
    other = {"type": "function", "function": {"name": "b", "parameters": {}}}
    turned = {"function": dict(reversed(WEATHER["function"].items())), "type": "function"}
    first = recall.same_tools([WEATHER, other], "a")
    assert json.dumps(recall.same_tools([other, turned], "a")) == json.dumps(first)
    assert json.dumps(recall.same_tools([other, turned], "b")) != json.dumps(first)


def say(server: LiveServer, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    body = {"messages": messages, "temperature": 0, "max_tokens": 100, **fields}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def prefilled(answer: dict[str, Any]) -> int:
    usage = answer["usage"]
    return int(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_turn_reads_only_what_is_new() -> None:
    """A client that leaves thinking out, calls tools, and spells its arguments anew."""
    messages: list[dict[str, Any]] = [SYSTEM]
    with live_server() as server:
        questions = ["What is the weather in Paris?", "hello", "What is the weather in Oslo?", "what is 2+3?"]
        for number, question in enumerate(questions):
            messages.append({"role": "user", "content": question})
            for _ in range(3):
                answer = say(server, messages, tools=[WEATHER])
                if number:
                    assert prefilled(answer) <= 64, f"{question}: {answer['usage']}"
                message = answer["choices"][0]["message"]
                kept: dict[str, Any] = {"role": "assistant", "content": message["content"]}
                messages.append(kept)
                if not message.get("tool_calls"):
                    break
                kept["tool_calls"] = message["tool_calls"]
                for call in kept["tool_calls"]:
                    call["function"]["arguments"] = json.dumps(
                        json.loads(call["function"]["arguments"]), separators=(",", ":")
                    )
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"})
            time.sleep(0.1)
            wait_until(lambda: server.engine.scheduler.is_idle)


def test_a_server_that_was_started_again_reads_nothing_twice(tmp_path: Path) -> None:
    config = ServerConfig(cache_folder=tmp_path, least_saved_tokens=64)
    messages = [SYSTEM, {"role": "user", "content": "hello"}]
    with live_server(config) as server:
        first = say(server, messages, enable_thinking=False)
        assert prefilled(first) > 64
    with live_server(config) as server:
        again = say(server, messages, enable_thinking=False)
    assert prefilled(again) <= 16
    assert again["choices"][0]["message"]["content"] == first["choices"][0]["message"]["content"]

# ruff: noqa: E501  (scripts for the page read best as long lines)
"""The built-in page in headless Chromium, on the demo and on a server that says what it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from browser import Browser, chromium
from live_server import LiveServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.routing import Route

from mlx_qwen3.server.page import page
from mlx_qwen3.server.run import listen

HOSTILE = """<script>window.hacked = 1</script> <img src=x onerror="window.hacked = 1">

[a](javascript:window.hacked=1) [b](data:text/html,x) <javascript:alert(1)> [c](https://example.com/?q="x)

<b>bold</b> `<i>code</i>`

| <u>a</u> | b |
|---|:-:|
| <script>window.hacked = 1</script> | [x](vbscript:x) |

```html
<script>window.hacked = 1</script>
```
"""
MARKDOWN = """# Title

A **bold** and *italic* word, `code`, ~~gone~~, 2 * 3 * 4, snake_case_name and [a link](https://example.com/a_b_(c)).

- one
  - inner
- two

* [ ] open
* [x] done

3. three
4. four

> quoted
> *twice*

| a | b |
|:--|--:|
| 1 | 2 |

---
```python
print("<hi>")

x = 1
```
"""


@dataclass
class Told:
    """A server that answers with given texts, and remembers what it was asked."""

    thinking: str = ""
    answer: str = "Hello."
    status: int = 200
    waits: bool = False
    key: str = ""
    has_models: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    left: threading.Event = field(default_factory=threading.Event)

    def say(self, answer: str, thinking: str = "") -> None:
        self.answer, self.thinking, self.status, self.waits = answer, thinking, 200, False

    async def chat(self, request: Request) -> Any:
        self.asked.append(await request.json() | {"key": request.headers.get("authorization")})
        if self.status != 200:
            return JSONResponse({"error": {"message": "it does not work"}}, self.status)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        yield _chunk({"role": "assistant", "content": ""})
        for start in range(0, len(self.thinking), 5):
            yield _chunk({"reasoning_content": self.thinking[start : start + 5]})
        for start in range(0, len(self.answer), 5):
            yield _chunk({"content": self.answer[start : start + 5]})
        try:
            while self.waits:
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.left.set()
            raise
        yield _chunk({}, "stop")
        usage = {"prompt_tokens": 10, "completion_tokens": 7}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


def _chunk(delta: Any, reason: str | None = None) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n"


@contextmanager
def served(told: Told) -> Iterator[None]:
    async def show(_: Request) -> HTMLResponse:
        html, headers = page()
        return HTMLResponse(html, headers=headers)

    async def show_head(_: Request) -> HTMLResponse:
        """The page as far as a slow network has brought it."""
        html, headers = page()
        return HTMLResponse(html[: html.index("<header>")], headers=headers)

    async def models(request: Request) -> JSONResponse:
        if told.key and request.headers.get("authorization") != f"Bearer {told.key}":
            return JSONResponse({"error": {"message": "no key"}}, 401)
        if not told.has_models:
            return JSONResponse({"error": {"message": "not yet"}}, 503)
        return JSONResponse({"data": [{"id": "first"}, {"id": "second"}]})

    chat = Route("/v1/chat/completions", told.chat, methods=["POST"])
    listener = listen("127.0.0.1", 0)
    app = Starlette(routes=[Route("/", show), Route("/head", show_head), Route("/v1/models", models), chat])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    told = Told()
    with served(told):
        yield told


@pytest.fixture
def browser(window: Browser, told: Told) -> Browser:
    """The page, as on a first visit."""
    told.say("Hello.")
    told.key, told.has_models = "", True
    told.asked.clear()
    told.left.clear()
    window.open(told.url + "head")  # without the script that might save again
    window.run("localStorage.clear(); sessionStorage.clear()")
    window.open(told.url)
    window.wait("document.querySelector('#model').length == 2")
    window.log()
    return window


def ask(browser: Browser, text: str = "hi") -> None:
    browser.run("document.querySelector('#text').focus()")
    browser.type(text)
    browser.press("Enter")


def answered(browser: Browser) -> None:
    browser.wait("!running && document.querySelector('.turn.assistant .tools')")


def test_the_page_names_no_other_machine_and_its_policy_allows_none() -> None:
    html, headers = page()
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy

    class Addresses(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.found += [
                value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")
            ]

    parser = Addresses()
    parser.found = []
    parser.feed(html)
    assert all(address.startswith("data:image/svg+xml") for address in parser.found)
    script = "".join(part.split("</script>")[0] for part in html.split("<script>")[1:])
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in script


def test_a_chat_with_the_demo(window: Browser, server: LiveServer) -> None:
    window.open(f"{server.url}/")
    window.run("localStorage.clear(); sessionStorage.clear(); location.reload()")
    window.wait("document.querySelector('#model')?.value == 'demo'")
    ask(window, "what is 47+85?")
    answered(window)
    assert "132" in window.run("return document.querySelector('.answer').innerText")
    assert window.run("return document.querySelector('.thinking').open") is False
    assert "Thought" in window.run("return document.querySelector('.thinking summary').innerText")
    names = window.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert all(name.startswith(server.url) for name in names)
    assert window.log() == [], "no script failed, and the policy refused nothing"


def test_markdown(browser: Browser, told: Told) -> None:
    told.say(MARKDOWN)
    ask(browser)
    answered(browser)

    def texts(selector: str) -> list[str]:
        found = browser.run(
            f"return [...document.querySelectorAll('.answer {selector}')].map(e => e.textContent)"
        )
        return [str(text) for text in found]

    assert texts("h1") == ["Title"]
    assert texts("strong") == ["bold"]
    assert texts("em") == ["italic", "twice"]
    assert texts("s") == ["gone"]
    assert texts("p code") == ["code"]
    assert "2 * 3 * 4, snake_case_name" in texts("p")[0]
    assert texts("ul ul li") == ["inner"]
    boxes = "return [...document.querySelectorAll('.answer .task')].map(e => [e.textContent, e.firstChild.checked])"
    assert browser.run(boxes) == [["open", False], ["done", True]]
    assert browser.run("return document.querySelector('.answer ol').start") == 3
    assert texts("blockquote") == ["quotedtwice"]
    assert texts("td") == ["1", "2"]
    assert (
        browser.run("return getComputedStyle(document.querySelectorAll('.answer td')[1]).textAlign")
        == "right"
    )
    assert len(texts("hr")) == 1
    assert texts("pre") == ['print("<hi>")\n\nx = 1']
    link = browser.run("const a = document.querySelector('.answer a'); return [a.href, a.rel]")
    assert link[0] == "https://example.com/a_b_(c)"
    assert "noopener" in link[1]


def test_what_a_model_writes_is_never_markup_of_the_page(browser: Browser, told: Told) -> None:
    told.say(HOSTILE, thinking=HOSTILE)
    ask(browser, "<img src=x onerror=window.hacked=1>")
    answered(browser)
    assert browser.run("return window.hacked") is None
    tags = browser.run("return [...document.querySelectorAll('#log *')].map(e => e.tagName.toLowerCase())")
    assert not {"script", "img", "b", "i", "u", "iframe"} & set(tags)
    links = browser.run("return [...document.querySelectorAll('#log a')].map(a => a.protocol)")
    assert set(links) == {"https:"}
    assert "<script>window.hacked = 1</script>" in browser.run(
        "return document.querySelector('.answer').innerText"
    )
    assert browser.log() == []


def test_streaming_draws_what_drawing_at_once_draws(browser: Browser, told: Told) -> None:
    for text in (MARKDOWN, HOSTILE):
        same = """
            const whole = document.createElement('div'), grown = document.createElement('div');
            const html = (node) => new XMLSerializer().serializeToString(node);
            for (let end = 1; end <= arguments[0].length; end++) show(grown, arguments[0].slice(0, end));
            show(whole, arguments[0]);
            return html(whole) === html(grown);"""
        assert browser.run(same, text)


def test_no_text_takes_long_to_draw(browser: Browser) -> None:
    for text in (
        "*" * 4000,
        "[" * 4000,
        "`" * 3999,
        "|" * 4000,
        "> " * 2000,
        "- " * 2000,
        "_a" * 3000,
        "**a" * 2000,
    ):
        seconds = browser.run(
            "const t = performance.now(); show(document.createElement('div'), arguments[0]); return (performance.now() - t) / 1000",
            text,
        )
        assert seconds < 5, text[:10]


def test_modes_of_thinking_are_sent(browser: Browser, told: Told) -> None:
    ask(browser)
    answered(browser)
    for _ in range(2):  # limited, then off
        browser.press("Escape", "t", "i")
        ask(browser)
        answered(browser)
    told_modes = [(asked["enable_thinking"], asked.get("thinking_budget")) for asked in told.asked]
    assert told_modes == [(True, None), (True, 500), (False, None)]
    assert [message["role"] for message in told.asked[-1]["messages"]] == ["user", "assistant"] * 2 + ["user"]


def test_settings_are_sent_and_kept(browser: Browser, told: Told) -> None:
    browser.press("Escape", ",")
    browser.type("Be kind.")
    browser.press("Tab")
    browser.type("0.5")
    browser.press("Tab")
    browser.type("99")
    browser.press("Tab")
    browser.type("secret-key")
    browser.press("Enter")
    browser.open(told.url)
    ask(browser)
    answered(browser)
    asked = told.asked[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (asked["temperature"], asked["max_tokens"], asked["key"]) == (0.5, 99, "Bearer secret-key")
    assert browser.run("return JSON.stringify(localStorage)").count("secret-key") == 0, (
        "kept for this tab alone"
    )


def test_stop(browser: Browser, told: Told) -> None:
    told.say("Hello, this goes on")
    told.waits = True
    ask(browser)
    browser.wait("document.querySelector('.answer')?.innerText.includes('goes on')")
    browser.press("Escape")
    answered(browser)
    assert told.left.wait(10), "the server saw that the client left"
    assert "stopped" in browser.run("return document.querySelector('.figures').innerText")
    assert "goes on" in browser.run("return document.querySelector('.answer').innerText")


def test_an_error_is_shown_and_can_be_tried_again(browser: Browser, told: Told) -> None:
    told.status = 400
    ask(browser)
    answered(browser)
    assert browser.run("return document.querySelector('.problem').innerText") == "it does not work"
    told.say("Now it does.")
    browser.press("Escape", "r")
    browser.wait("document.querySelector('.answer')?.innerText == 'Now it does.'")
    assert not browser.run("return document.querySelector('.problem')")


EDITING = (
    "document.querySelector('#text').value == 'a\\nb' && document.querySelectorAll('.replaced').length == 2"
)
KEYS: dict[str, tuple[list[str], str]] = {
    "leave the box": (["Escape"], "document.activeElement.id == 'scroll'"),
    "open thinking": (["o"], "document.querySelector('.thinking').open"),
    "fold thinking": (["o"], "!document.querySelector('.thinking').open"),
    "copy": (["c"], "document.querySelector('#said').textContent == 'Copied'"),
    "theme": (["l", "l"], "document.documentElement.dataset.theme == 'dark'"),
    "limit of thinking": (["t"], "!document.querySelector('.budget').hidden"),
    "help": (["?"], "document.querySelector('#keys-box').open"),
    "close help": (["Escape"], "!document.querySelector('dialog[open]')"),
    "settings": ([","], "document.querySelector('#settings-box').open"),
    "close settings": (["Escape"], "!document.querySelector('dialog[open]')"),
    "model": (["m", "Down"], "document.querySelector('#model').value == 'second'"),
    "go to the box": (["Escape", "i"], "document.activeElement.id == 'text'"),
    "a new line": (["a", "Shift+Enter", "b"], "document.querySelector('#text').value == 'a\\nb'"),
    "send": (["Enter"], "turns.length == 4 && !running"),
    "answer again": (["Escape", "r"], "turns.length == 4 && !running && turns[3].finish"),
    "edit the latest message": (["i", "Up"], EDITING),
    "end editing": (
        ["Escape"],
        "!document.querySelector('.replaced') && !document.querySelector('#text').value && turns.length == 4",
    ),
    "new conversation": (["Escape", "n"], "turns.length == 0 && document.querySelector('.welcome')"),
    "the conversation before": (
        ["Escape", "u"],
        "turns.length == 4 && document.querySelectorAll('.turn').length == 4",
    ),
}


def test_every_function_has_a_key(browser: Browser, told: Told) -> None:
    told.say("Hello.", thinking="Hm.")
    ask(browser)
    answered(browser)
    for name, (keys, outcome) in KEYS.items():
        browser.press(*keys)
        try:
            browser.wait(outcome)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def test_a_key_goes_to_the_latest_words(browser: Browser, told: Told) -> None:
    told.say("Hello.\n\n" * 80)
    ask(browser)
    answered(browser)
    browser.run("document.querySelector('#scroll').scrollTop = 0")
    browser.wait("!document.querySelector('#jump').hidden")
    browser.press("Escape", "j")
    browser.wait("isAtEnd() && document.querySelector('#jump').hidden")


def test_everything_can_be_reached_by_tab(browser: Browser, told: Told) -> None:
    told.say(MARKDOWN, thinking="Hm.")
    ask(browser)
    answered(browser)
    browser.run("document.querySelector('input[value=budget]').click()")
    controls = browser.run("""
        const all = [...document.querySelectorAll('button, a[href], input, select, textarea, summary, pre, .wide')];
        const shown = all.filter(e => e.checkVisibility() && !e.disabled && !e.closest('dialog') && (e.type != 'radio' || e.checked));
        shown.forEach((e, at) => e.dataset.at = at);
        return shown.length""")
    reached = set()
    browser.run("document.activeElement.blur()")
    for _ in range(controls + 6):
        browser.press("Tab")
        reached.add(browser.run("return document.activeElement.dataset.at ?? ''"))
        is_marked = "const s = getComputedStyle(document.activeElement.closest('.modes label') ?? document.activeElement);"
        assert browser.run(
            f"{is_marked} return s.outlineStyle != 'none' || document.activeElement.matches('#text, #scroll, body')"
        )
    assert {str(at) for at in range(controls)} <= reached


def test_a_reload_keeps_the_conversation(browser: Browser, told: Told) -> None:
    ask(browser)
    answered(browser)
    browser.open(told.url)
    assert browser.run("return document.querySelector('.answer').innerText") == "Hello."


def test_a_reload_in_the_middle_of_an_answer_keeps_what_there_is(browser: Browser, told: Told) -> None:
    told.say("Hello, this goes on")
    told.waits = True
    ask(browser, "my question")
    browser.wait("document.querySelector('.answer')?.innerText.includes('goes on')")
    browser.open(told.url)
    assert browser.run("return document.querySelector('.bubble').innerText") == "my question"
    assert "goes on" in browser.run("return document.querySelector('.answer').innerText")
    assert "stopped" in browser.run("return document.querySelector('.figures').innerText")


def test_nothing_is_lost_by_editing_before_the_new_message_is_sent(browser: Browser, told: Told) -> None:
    for text in ("one", "two"):
        ask(browser, text)
        answered(browser)
    browser.type("a draft")
    browser.run("document.querySelector('.turn.user button').click()")
    assert browser.run("return document.querySelector('#text').value") == "one"
    assert "Sending replaces" in browser.run("return document.querySelector('#editing').innerText")
    browser.press("Escape")
    assert browser.run("return document.querySelector('#text').value") == "a draft"
    assert browser.run("return turns.map(turn => turn.content)") == ["one", "Hello.", "two", "Hello."]
    browser.run("document.querySelector('.turn.user button').click()")
    browser.type(" better")
    browser.press("Enter")
    browser.wait("turns.length == 2 && !running")
    assert browser.run("return turns.map(turn => turn.content)") == ["one better", "Hello."]
    assert browser.run("return document.querySelector('#editing').hidden")
    assert [message["content"] for message in told.asked[-1]["messages"]] == ["one better"]


def test_a_new_conversation_can_be_left_for_the_one_before_also_after_a_reload(
    browser: Browser, told: Told
) -> None:
    ask(browser, "first question")
    answered(browser)
    browser.press("Escape", "n")
    browser.wait("document.querySelector('.ideas .back')")
    browser.open(told.url)
    browser.run("document.querySelector('.ideas .back').click()")
    assert browser.run("return document.querySelector('.bubble').innerText") == "first question"


def test_what_was_copied_is_said_to_the_eye_too(browser: Browser, told: Told) -> None:
    ask(browser)
    answered(browser)
    browser.press("Escape", "c")
    browser.wait("document.querySelector('#said').innerText == 'Copied'")
    assert browser.run("return document.querySelector('#said').clientWidth") > 40
    browser.wait("document.querySelector('#said').offsetWidth < 2")


def test_the_focus_is_never_lost(browser: Browser, told: Told) -> None:
    focused = "return document.activeElement.id"
    browser.run("document.querySelector('.ideas button').focus()")
    browser.press("Enter")
    answered(browser)
    assert browser.run(focused) == "text"
    browser.run("[...document.querySelectorAll('.turn.assistant button')].at(-1).focus()")
    browser.press("Enter")
    browser.wait("!running && turns.at(-1).finish")
    assert browser.run(focused) == "scroll"


def test_a_server_that_asks_for_a_key(browser: Browser, told: Told) -> None:
    told.key = "open-sesame"
    browser.open(told.url)
    browser.wait("document.querySelector('#settings-box').open && document.activeElement.id == 'key'")
    assert "asks for one" in browser.run("return document.querySelector('#key-note').innerText")
    browser.type("open-sesame")
    browser.press("Enter")
    browser.wait("document.querySelector('#model').length == 2")


def test_models_that_could_not_be_listed_at_first_are_asked_for_again(browser: Browser, told: Told) -> None:
    told.has_models = False
    browser.open(told.url)
    browser.wait("document.querySelector('.problem')?.innerText == 'not yet'")
    told.has_models = True
    ask(browser)
    answered(browser)
    assert told.asked[-1]["model"] == "first"


def test_no_other_theme_is_painted_first(browser: Browser, told: Told) -> None:
    browser.press("Escape", "l", "l")
    browser.open(told.url + "head")
    assert browser.run("return document.documentElement.dataset.theme") == "dark"


def test_no_word_of_a_table_is_broken_on_a_phone(browser: Browser, told: Told) -> None:
    browser.resize(390, 844)
    try:
        names = " | ".join(["Parameters", "Memory", "Context", "Throughput", "Architecture", "Remarks"])
        told.say(f"| {names} |\n|{'---|' * 6}\n| {names} |")
        ask(browser)
        answered(browser)
        heights = browser.run("return [...document.querySelectorAll('td')].map(e => e.clientHeight)")
        assert max(heights) < 50, "each word is on one line"
        assert browser.run(
            "const e = document.querySelector('#scroll'); return e.scrollWidth <= e.clientWidth"
        )
    finally:
        browser.resize(1200, 860)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(browser: Browser, told: Told, scheme: str) -> None:
    browser.prefer(scheme)
    told.say(MARKDOWN, thinking="Hm.")
    ask(browser)
    answered(browser)
    contrasts = browser.run(CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts


CONTRASTS = """
    const light = (rgb) => {
      const [r, g, b] = rgb.map(c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const ground = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c.slice(0, 3); } };
    const found = {};
    for (const name of ['.bubble', '.answer p', '.answer a', '.answer code', '.block .bar', '.thinking summary', '.figures',
                        '.hint', '.modes label', '.modes label:has(:checked)', '.picker select', '.answer blockquote p']) {
      const e = document.querySelector(name), a = light(numbers(getComputedStyle(e).color)), b = light(ground(e));
      found[name] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }
    return found;"""


def test_first_paint(browser: Browser, told: Told, tmp_path: Path) -> None:
    """The page is one small file and paints without waiting for anything but itself."""
    browser.open(told.url)
    entries = "performance.getEntriesByName('first-contentful-paint')"
    browser.wait(f"{entries}.length")
    assert len(page()[0].encode()) < 64_000
    requests = browser.run(
        "return performance.getEntriesByType('resource').filter(e => e.renderBlockingStatus == 'blocking').length"
    )
    assert requests == 0

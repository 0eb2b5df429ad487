"""Chat templates of strangers: whatever they do, they take little time and memory."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fresh_python import python
from qwen_tokenizer_files import CONTROL_TOKENS, DEMO_TEMPLATE, official_templates

from mlx_qwen3.errors import MessageError, TemplateError
from mlx_qwen3.tokenizer import isolated_template
from mlx_qwen3.tokenizer.chat_template import ChatTemplate
from mlx_qwen3.tokenizer.isolated_template import IsolatedTemplate
from mlx_qwen3.tokenizer.jinja_sandbox import CompiledTemplate
from mlx_qwen3.tokenizer.published_templates import is_published

HI = {"role": "user", "content": "hi"}
GROWING = "{{% set n = namespace(x={}) %}}{{% for i in range(99999) %}}{{% set n.x = {} %}}{{% endfor %}}"
NESTED = GROWING.format("[]", "[n.x]")

# One of each kind runs in each test run; all of them with MLX_QWEN3_LONG_TESTS=1.
BOMBS = {
    "memory": [
        "{{ 'x' * 10 ** 12 }}",
        "{{ 'x' | center(1500000000) | length }}",
        "{{ [1] | tojson(indent=1500000000) }}",
        "{{ '%1500000000d' % 1 }}",
        "{{ '{:>1500000000}'.format(1) }}",
        "{{ 'x'.ljust(1500000000) | length }}",
        "{{ 'x'.zfill(1500000000) | length }}",
        "{{ [1] * 10 ** 12 }}",
        "{{ 'x' | center(10 ** 18) }}",
        "{{ ('a b ' * 10000000).split() | length }}",
        "{{ ('a' * 30000000) | wordwrap(1) | length }}",
        "{{ ('<' * 60000000) | escape | length }}",
        "{{ ('a' * 9000000) | replace('a', 'b' * 40) | length }}",
        "{{ ('a' * 90000000) | list | length }}",
        "{{ range(10 ** 9) | list }}",
    ],
    "growth": [
        GROWING.format("'x'", "n.x + n.x"),
        GROWING.format("'x'", "n.x ~ n.x"),
        GROWING.format("[1]", "n.x + n.x"),
        GROWING.format("'x'", "n.x.replace('x', 'xx')"),
        GROWING.format("'x'", "n.x | replace('x', 'xx')"),
        GROWING.format("9", "n.x * n.x"),
    ],
    "output": [
        "{% set x = 'x' * 6000000 %}{% for i in range(999) %}{{ x }}{% endfor %}",
        "{% set x = 'x' * 6000000 %}{% macro f() %}{% for i in range(999) %}{{ x }}{% endfor %}{% endmacro %}"
        "{{ f() }}",
        "{{ 'x' * 50000000 }}",
    ],
    "time": [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** (10 ** 9) }}",
        "{{ 7 // 1 ** 999 * 3 ** 9999999 }}",
        "{% for i in range(9999) %}{{ ('ab' * 5000000).find('abb') }}{% endfor %}",
        "{% set x = [[1] * 9999] * 9999 %}{{ x | pprint | length }}",
        "{% for i in range(9999) %}{{ range(99999) | list | sort | length }}{% endfor %}",
        GROWING.format("[1]", "[n.x, n.x]") + "{{ n.x | tojson }}",
    ],
    "stack": [
        "{% set n = namespace(a=(1,)) %}{% for i in range(99999) %}"
        "{% set n.a = (((((((((n.a,),),),),),),),),) %}{% endfor %}{{ {n.a: 1} | length }}",
        NESTED + "{{ n.x | tojson | length }}",
        NESTED + "{{ n.x == n.x[0] }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    ],
    "source": [
        "{{ " + "1 + " * 90000 + "1 }}",
        "{{ " + "[" * 90000,
        "{% if 1 %}" * 90000,
        "{{ 'a' " + "| upper" * 30000 + "}}",
        "{{ 'a' }}" * 100000,
    ],
}
# Renders each template of a file; for each, the error, the processor time and the largest process so far.
MEASURE = """
import json, resource, sys
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.tokenizer.chat_template import ChatTemplate
rows = []
for source in json.load(open(sys.argv[1])):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        ChatTemplate(source).render([{"role": "user", "content": "hi"}])
        error = ""
    except Qwen3Error as problem:
        error = f"{type(problem).__name__}: {problem}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows.append([error, seconds, after.ru_maxrss])
print(json.dumps(rows))
"""


def test_bombs_end_soon_and_small_in_one_line(tmp_path: Path) -> None:
    is_long = bool(os.environ.get("MLX_QWEN3_LONG_TESTS"))
    sources = [source for kind in BOMBS.values() for source in (kind if is_long else kind[:1])]
    (tmp_path / "sources.json").write_text(json.dumps(sources))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    for source, (error, seconds, peak) in zip(
        sources, json.loads(python(MEASURE, str(tmp_path / "sources.json"))), strict=True
    ):
        assert error.startswith("TemplateError: the chat template "), source[:80]
        assert len(error) < 300
        assert error.isprintable()
        assert seconds < 2, source[:80]
        assert peak * unit < 300e6, source[:80]


@pytest.mark.parametrize(
    "source",
    [
        "{% break %}",
        "{% continue %}",
        "{% macro m(a, a) %}{% endmacro %}",
        "{{ dict(a=1, a=2) }}",
        "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
        "{% if true %}" * 110 + "{% endif %}" * 110,
        "{{ " + "9" * 5000 + " }}",
        "{% autoescape 1 // 0 %}{% endautoescape %}",
        "{% import 'x' as x with context without %}",
        "{{ loop.index0 if }}",
        "{% set x.y.z = 1 %}",
    ],
)
def test_a_template_that_cannot_be_compiled_is_a_template_error(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        CompiledTemplate(source).render({})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_nothing_is_computed_while_a_template_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        pytest.fail("a filter ran")

    from jinja2 import nodes

    monkeypatch.setattr(nodes._FilterTestCommon, "as_const", fail)
    monkeypatch.setattr(nodes.BinExpr, "as_const", fail)
    source = "{{ 'x' | center(9) | length }}{% if 2 * 3 %}{{ 2 * 3 ~ 4 }}{{ [1] | tojson }}{% endif %}{{ a }}"
    template = CompiledTemplate(source)
    assert template.variables == {"a"}


def test_qwens_own_templates_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_template, "_command", lambda: pytest.fail("a process was started"))
    sources = {"demo": DEMO_TEMPLATE.read_text(encoding="utf-8"), **official_templates()}
    for source in sources.values():
        assert is_published(source)
        assert ChatTemplate(source, CONTROL_TOKENS).render([HI])
        assert not is_published(source + "{{ 1 }}")


def test_a_template_says_the_same_here_and_there() -> None:
    source = DEMO_TEMPLATE.read_text(encoding="utf-8") + "{{ strftime_now('%Y') }}{{ other }}"
    here, there = CompiledTemplate(source), IsolatedTemplate(source)
    assert (here.variables, here.strings) == (there.variables, there.strings)
    call = {"name": "f", "arguments": {"x": [1.5, None, True, "é"], "y": {"z": 10**30}}}
    messages = [HI, {"role": "assistant", "content": "😀", "tool_calls": [call]}] * 3
    variables = {"messages": messages, "tools": [{"name": "f"}], "add_generation_prompt": True}
    assert here.render(variables) == there.render(variables)


def test_after_a_runaway_the_template_serves_again() -> None:
    template = ChatTemplate("{{ messages[0].content * (messages | length ** 50) }}ok")
    with pytest.raises(TemplateError, match="runs away"):
        template.render([HI, HI])
    assert template.render([HI])[0].text == "hiok"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_died_is_replaced(number: int) -> None:
    template = IsolatedTemplate("{{ a }}")
    assert template.render({"a": 1}) == "1"
    template._process._child.send_signal(number)
    with pytest.raises(TemplateError, match="was stopped"):
        template.render({"a": 2})
    assert template.render({"a": 3}) == "3"


def test_memory_is_watched_where_the_kernel_does_not_limit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_template, "memory_limit", lambda size: 30 * 2**20)
    busy = "{% for i in range(99999) %}{% set y = x ~ 'a' %}{% endfor %}"
    template = IsolatedTemplate("{{ a }}{% set x = 'x' * a %}" + busy)
    with pytest.raises(TemplateError, match="was stopped"):
        template.render({"a": 60 * 2**20})


def test_a_process_ends_with_its_template() -> None:
    template = IsolatedTemplate("{{ a }}")
    child = psutil.Process(template._process._child.pid)
    assert child.is_running()
    del template
    assert not child.is_running()
    with pytest.raises(TemplateError):
        IsolatedTemplate("{% for %}")
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children()]
    assert not any("template_process" in command for command in commands)


def test_a_process_ends_with_the_program_that_was_killed() -> None:
    code = """
import os, signal
from mlx_qwen3.tokenizer.isolated_template import IsolatedTemplate
template = IsolatedTemplate("{{ a }}")
print(template._process._child.pid, flush=True)
"""
    pid = int(python(code + "os.kill(os.getppid(), 0)"))
    assert not psutil.pid_exists(pid)
    pid = int(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r} + "
                     "'os.kill(os.getpid(), signal.SIGKILL)'])"))  # fmt: skip
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=100)


def test_secrets_are_not_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "1")
    template = IsolatedTemplate("{{ a }}")
    assert "MY_SECRET" not in psutil.Process(template._process._child.pid).environ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_program_starts_a_process_of_its_own() -> None:
    code = """
import os
from mlx_qwen3.tokenizer.isolated_template import IsolatedTemplate
template = IsolatedTemplate("{{ a }}")
if (pid := os.fork()) == 0:
    ok = template.render({"a": "child"}) == "child"
    os._exit(0 if ok else 1)
status = os.waitpid(pid, 0)[1]
print(status, template.render({"a": "parent"}))
"""
    assert python(code) == "0 parent"


def test_threads_share_a_template() -> None:
    template = IsolatedTemplate("{{ a }}")
    wrong: list[Any] = []

    def render(number: int) -> None:
        for i in range(50):
            text = f"{number}-{i}-" + "x" * 1000
            if template.render({"a": text}) != text:
                wrong.append(number)

    threads = [threading.Thread(target=render, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_refusal_crosses_as_a_message_error() -> None:
    with pytest.raises(MessageError, match=r"^the chat template refuses this conversation: a+ \.\.\. a+$"):
        ChatTemplate("{{ raise_exception('a' * 5000) }}").render([HI])


def test_without_a_python_to_run_it_a_strangers_template_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(TemplateError, match=r"multiprocessing\.set_executable"):
        ChatTemplate("{{ a }}").render([HI])


def test_a_template_that_is_too_long_is_refused() -> None:
    with pytest.raises(TemplateError, match="characters"):
        ChatTemplate("a" * (2**20 + 1)).render([HI])


def test_a_template_file_that_is_no_file(tmp_path: Path) -> None:
    from mlx_qwen3.tokenizer.chat_template import find_template

    os.mkfifo(tmp_path / "chat_template.jinja")
    with pytest.raises(TemplateError, match="not a regular file"):
        find_template(tmp_path, {})

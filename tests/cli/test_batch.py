"""`generate --batch`: request files, result files, and continuing a killed run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli.test_cli import run
from typer.testing import CliRunner

from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.batch import _with_defaults
from mlx_qwen3.cli.batch_file import ResultFile, ResultStream, read_requests, result_line
from mlx_qwen3.engine.batch import BatchRequest, BatchResult
from mlx_qwen3.errors import MessageError


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_message_a_line() -> None:
    requests = read_requests("one\n\n  two \n", "p.txt")
    assert [request.messages for request in requests] == [
        [{"role": "user", "content": "one"}],
        [{"role": "user", "content": "  two "}],
    ]
    assert [request.id for request in requests] == [1, 3]
    requests = read_requests("one\n\n  two \n", "p.txt", is_raw=True)
    assert requests == [BatchRequest(prompt="one", id=1), BatchRequest(prompt="  two ", id=3)]
    assert read_requests("\n \n", "p.txt") == []


def test_json_lines() -> None:
    messages = [{"role": "user", "content": "hi"}]
    text = "\n".join(
        json.dumps(row)
        for row in (
            {"prompt": "one", "id": "a", "max_tokens": 3, "seed": 1},
            {"messages": messages, "thinking": False, "thinking_budget": 5},
            {"messages": messages, "schema": {"type": "integer"}},
        )
    )
    assert read_requests(text, "p.jsonl") == [
        BatchRequest(prompt="one", id="a", sampling={"max_tokens": 3, "seed": 1}),
        BatchRequest(messages=messages, id=2, thinking=False, thinking_budget=5),
        BatchRequest(messages=messages, id=3, schema={"type": "integer"}),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "not a JSON object"),
        ('{"prompt": "a", "heat": 1}', "no field 'heat'; there are id, prompt"),
        ('{"prompt": "a", "temperature": 99}', "temperature must be between 0 and 10"),
        ('{"messages": [], "schema": "x"}', "schema is 'x', which is of the wrong type"),
        ('{"prompt": "a", "messages": []}', "either a prompt or messages"),
        ('{"id": 3}', "either a prompt or messages"),
        ('{"messages": [], "thinking_budget": -1}', "thinking_budget must be a number of tokens, not -1"),
        ('{"messages": [], "thinking_budget": true}', "thinking_budget is True, which is of the wrong type"),
        ('{"prompt": "a", "n": 0}', "n must be between 1 and 128, not 0"),
        ('{"prompt": "a", "n": true}', "n is True, which is of the wrong type"),
        ('{"messages": [], "continue_final_message": "yes"}', "is 'yes', which is of the wrong type"),
        ('{"prompt": 3}', "prompt is 3, which is of the wrong type"),
        ('{"messages": "hi"}', "messages is 'hi', which is of the wrong type"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str, message: str) -> None:
    with pytest.raises(MessageError, match=r"^f\.jsonl, line 3: ") as caught:
        read_requests('{"prompt": "a"}\n\n' + line, "f.jsonl")
    assert message in str(caught.value)


def test_lines_end_where_json_says_so() -> None:
    text = '{"prompt": "a\u2028b\x85c", "id": "\\ud800"}\r\n{"prompt": "d"}\r\n'
    requests = read_requests(text, "p.jsonl")
    assert [request.prompt for request in requests] == ["a\u2028b\x85c", "d"]
    assert [request.prompt for request in read_requests("\ufeff" + text, "a file")] == ["a\u2028b\x85c", "d"]
    line = result_line(requests[0], BatchResult(0, None, text="\u2028"))
    assert json.loads(line.encode())["text"] == "\u2028"


def test_a_line_may_ask_for_several_results_and_a_begun_answer(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Help"}]
    begun = {"messages": messages, "continue_final_message": True}
    text = json.dumps({"prompt": "a", "n": 3, "seed": 5, "id": "a"}) + "\n" + json.dumps(begun)
    requests = read_requests(text, "p.jsonl")
    assert [request.sampling.get("seed") for request in requests] == [5, 6, 7, None]
    assert [request.n for request in requests] == [1, 1, 1, 1]
    assert requests[3].continue_final_message
    lines = [
        result_line(request, BatchResult(0, request.id, text="x", finish_reason="stop"))
        for request in requests
    ]
    assert [json.loads(line).get("choice") for line in lines] == [0, 1, 2, None]
    first = ResultFile(tmp_path / "out", requests, {})
    for index in (1, 3):
        first.add(index, lines[index])
    first._file.close()
    other = [*requests[:3], *read_requests(json.dumps(begun | {"continue_final_message": False}), "p")]
    again = ResultFile(tmp_path / "out", other, {})  # the last asks for something else now
    assert {index: json.loads(line)["choice"] for index, line in again.done.items()} == {1: 1}


def test_one_seed_for_all_gives_each_result_its_own() -> None:
    asked = read_requests('{"prompt": "a", "n": 2}\n{"prompt": "b", "n": 2, "seed": 9}\n', "p")
    sampling = [_with_defaults(request, {"sampling": {"seed": 1}}).sampling for request in asked]
    assert [values["seed"] for values in sampling] == [1, 2, 9, 10]


def test_results_stream_in_the_order_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    stream, seen = ResultStream(sys.stdout), []
    for index in (2, 0, 1):
        stream.add(index, str(index))
        seen.append(capsys.readouterr().out)
    assert seen == ["", "0\n", "1\n2\n"]


def test_a_run_goes_on_where_another_was_killed(tmp_path: Path) -> None:
    asked = [BatchRequest(prompt=text, id=number) for number, text in enumerate("abca")]
    texts = ["A\u2028", *"BCD"]
    results = [BatchResult(i, i, text=text, finish_reason="stop") for i, text in enumerate(texts)]
    results[2] = BatchResult(2, 2, error="no")
    out = tmp_path / "new" / "out.jsonl"
    first = ResultFile(out, asked, {"seed": 1})
    for index in (0, 1, 2):
        first.add(index, result_line(asked[index], results[index]))
    first._file.close()
    with first.partial.open("a") as file:
        file.write('{"key": "cut o')
    assert not out.exists()
    assert ResultFile(out, asked, {"seed": 2}).done == {}  # other settings give other results
    second = ResultFile(out, [BatchRequest(prompt="new", id="n"), *asked], {"seed": 1})
    assert {index: json.loads(line)["text"] for index, line in second.done.items()} == {1: "A\u2028", 2: "B"}
    for index, text in ((0, "N"), (3, "C"), (4, "D")):
        second.add(index, result_line(asked[0], BatchResult(index, index, text=text)))
    second.finish()
    assert [row["text"] for row in rows(out.read_text())] == ["N", "A\u2028", "B", "C", "D"]
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    with pytest.raises(MessageError, match="exists already"):
        ResultFile(out, asked, {})


def test_a_file_of_both_kinds(tmp_path: Path) -> None:
    question = {"messages": [{"role": "user", "content": "what is 4+5?"}], "id": "sum", "thinking": False}
    file = write(tmp_path / "in.jsonl", {"prompt": ""}, question, {"prompt": "The time", "max_tokens": 2})
    out = tmp_path / "out.jsonl"
    done = run("generate", "--batch", str(file), "-o", str(out), "--temperature", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: 1 of 3 requests failed; their lines say why ('error')\n"
    empty, answer, text = rows(out.read_text())
    assert empty == {"id": 1, "error": "the prompt is empty; there is nothing to complete"}
    assert set(answer) - set(text) == {"thinking", "answer", "thinking_tokens"}
    assert (answer["id"], answer["finish_reason"], answer["thinking"]) == ("sum", "stop", "")
    assert (text["id"], text["completion_tokens"], text["finish_reason"]) == (3, 2, "length")
    again = run("generate", "--batch", "-", "--temperature", "0", stdin=file.read_text())
    assert rows(again.stdout) == [empty, answer, text]


def test_answers_in_the_form_of_a_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    (tmp_path / "sum.json").write_text(json.dumps(schema))
    question = {"messages": [{"role": "user", "content": "what is 4+5?"}], "max_tokens": 40}
    own = question | {"schema": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}}
    file = write(tmp_path / "in.jsonl", question, own)
    arguments = ["generate", "--batch", str(file), "--no-think", "--seed", "1"]
    first, second = rows(run(*arguments, "--schema", str(tmp_path / "sum.json")).stdout)
    assert isinstance(first["parsed"]["sum"], int)
    assert json.loads(second["answer"]) == second["parsed"]
    assert set(second["parsed"]) <= {1, 2}
    missing = run(*arguments, "--schema", str(tmp_path / "none.json"))
    assert missing.stderr == f"error: {tmp_path / 'none.json'} is missing\n"


def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    file, out = write(tmp_path / "in.txt", *(["The time"] * 24)), tmp_path / "out.jsonl"
    arguments = ["generate", "--raw", "--batch", str(file), "-o", str(out), "--batch-size", "2"]
    arguments += ["--max-tokens", "16"]
    code = "from mlx_qwen3.cli.app import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    partial = tmp_path / "out.jsonl.partial"
    while not (partial.exists() and partial.read_text().count("\n") >= 3):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = run(*arguments[:-4], "--max-tokens", "16")
    assert done.returncode == 0
    assert done.stderr.startswith("continuing: ")
    assert [row["id"] for row in rows(out.read_text())] == list(range(1, 25))
    assert not partial.exists()


@pytest.mark.parametrize(
    "option", ["--out=x", "--batch-size=2", "--think", "--thinking-budget=3", "--schema=x", "--raw"]
)
def test_what_only_a_batch_has_is_wrong_usage_without_one(option: str) -> None:
    done = CliRunner().invoke(app, ["generate", "-p", "hi", option])
    assert done.exit_code == 2
    assert "needs a batch" in done.output


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    requests = [BatchRequest(prompt="a", id=1)]
    first = ResultFile(tmp_path / "out", requests, {})
    with pytest.raises(MessageError, match="another run is writing"):
        ResultFile(tmp_path / "out", requests, {})
    first.add(0, '{"id": 1}')
    first.finish()
    assert (tmp_path / "out").read_text() == '{"id": 1}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        "5",
        '"x"',
        "{",
        '{"key": []}',
        "true",
        '{"key": KEY}',
        '{"key": KEY, "result": 1}',
        '{"key": KEY, "result": {}}',
        '{"key": KEY, "result": {"id": 1, "error": "x"}}',
    ],
)
def test_a_partial_file_of_any_content_is_passed_over(tmp_path: Path, line: str) -> None:
    requests = [BatchRequest(prompt="a", id=1)]
    first = ResultFile(tmp_path / "out", requests, {})
    first.add(0, '{"id": 1}')
    key = json.loads(first.partial.read_text())["key"]
    first.partial.write_text(line.replace("KEY", json.dumps(key)) + "\n")
    del first
    assert ResultFile(tmp_path / "out", requests, {}).done == {}

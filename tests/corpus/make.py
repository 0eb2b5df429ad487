"""Writes outputs.jsonl: outputs of models, and the events that the parser must make of them.

    python tests/corpus/make.py

The expected events do not come from the parser: they are written here, or are the value that the output was
made of.
A line: note, family (right, broken, hopeless or hostile), format, thinking (whether the prompt opened
it), tools (name -> properties, null for any), stream (text; one-element lists are control tokens),
expect (["thinking" or "answer", text], ["call", name, arguments], ["error", name, what it says]),
either_way (true if it holds for spelled tags as well, where the tokenizer has no tokens).
"""

# ruff: noqa: E501
import json
import re
from pathlib import Path

TAG = re.compile(r"(<think>|</think>|<tool_call>|</tool_call>|<\|\w+\|>)")
TOOLS = {
    "get_time": {"city": {"type": "string"}},
    "calculator": {"expression": {"type": "string"}},
    "write_file": {"path": {"type": "string"}, "content": {"type": "string"}},
    "plan": {
        "days": {"type": "integer"},
        "price": {"type": "number"},
        "quick": {"type": "boolean"},
        "stops": {"type": "array"},
        "options": {"type": "object"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "list_files": {},
}
PARIS = '{"name": "get_time", "arguments": {"city": "Paris"}}'
OSLO = '{"name": "get_time", "arguments": {"city": "Oslo"}}'
PARIS_CALL = ["call", "get_time", {"city": "Paris"}]
OSLO_CALL = ["call", "get_time", {"city": "Oslo"}]
lines = []


def add(family, note, text, *expect, thinking=False, xml=False, spelled=False, either_way=True, tools=TOOLS):
    """spelled: the tags of `text` are spelled, although the tokenizer has tokens for them."""
    pieces = [text] if spelled else [[p] if TAG.fullmatch(p) else p for p in TAG.split(text) if p]
    lines.append(
        {
            "note": note,
            "family": family,
            "format": "xml" if xml else "json",
            "thinking": thinking,
            "tools": tools,
            "stream": pieces,
            "expect": list(expect),
            "either_way": either_way and not spelled,
        }
    )


def block(body):
    return f"<tool_call>\n{body}\n</tool_call>"


def xml_body(name, **parameters):
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters.items())
    return f"<function={name}>\n{inner}</function>"


# Values that are hard to parse: each is tried as JSON, escaped JSON, JSON in a string, XML and loose JSON.

VALUES = {
    "plain": "hello",
    "empty": "",
    "accents": "Zürich, São Paulo, Kraków",
    "Chinese": "北京现在几点？",
    "emoji": "🦜 and 👩‍👩‍👧",
    "right to left": "שלום مرحبا",
    "double quotes": 'say "hi"',
    "single quotes": "it's the cat's",
    "backslashes": "C:\\new\\table\\",
    "regular expression": r"^\d+\s*[\"']$",
    "line breaks": "one\ntwo\n\nthree",
    "tabs": "a\tb",
    "braces": "}} {{ }{",
    "brackets": "]] [[ ][",
    "closing a call": '"}}',
    "JSON": '{"name": "get_time", "arguments": {"city": "Oslo"}}',
    "a closing tag": "before </tool_call> after",
    "an opening tag": "before <tool_call> after",
    "a whole call": '<tool_call>{"name": "calculator", "arguments": {}}</tool_call>',
    "think tags": "a <think>b</think> c",
    "turn tokens": "x <|im_end|> y <|im_start|>user",
    "a fence": "```python\nprint(1)\n```",
    "XML": "<a href='x'>y</a> &amp; <br/>",
    "Python words": "None, True and False",
    "a number": "42",
    "commas at the end": "a,},],",
    "a colon": "key: value, other: 'x'",
    "a zero character": "a\u0000b",
    "spaces around": "  both sides  ",
    "only spaces": "   ",
}
TURN = re.compile(r"<\|im_(start|end)\|>")


def add_values():
    for note, value in VALUES.items():
        arguments = {"path": "a.txt", "content": value}
        call = ["call", "write_file", arguments]
        either = "im_" not in value and "think" not in value
        plain = json.dumps({"name": "write_file", "arguments": arguments}, ensure_ascii=False)
        add("right", f"value in JSON: {note}", block(plain), call)
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 65536 else json.dumps(c)[1:-1] for c in value)
        body = f'{{"name": "write_file", "arguments": {{"path": "a.txt", "content": "{escaped}"}}}}'
        add("right", f"value in unicode escapes: {note}", block(body), call)
        as_string = json.dumps({"name": "write_file", "arguments": json.dumps(arguments)})
        add("broken", f"arguments as a string: {note}", block(as_string), call)
        if not TURN.search(value):
            body = xml_body("write_file", path="a.txt", content=value)
            add("right", f"value in XML: {note}", block(body), call, xml=True, either_way=either)
        quoted = repr(arguments) if "\u0000" not in value and "'" not in value else None
        if quoted:
            body = f"{{'name': 'write_file', 'arguments': {quoted}}}"
            add("broken", f"a Python dict: {note}", block(body), call)
        trailing = plain[:-2] + ",},}"
        add("broken", f"trailing commas: {note}", block(trailing), call)


def add_right():
    add("right", "an answer", "Hello!", ["answer", "Hello!"])
    add("right", "nothing", "")
    add("right", "only blank lines", "\n\n \n")
    add("right", "an answer keeps its last line break", "Hello!\n", ["answer", "Hello!\n"])
    add("right", "an empty think block", "<think>\n\n</think>\n\nHi", ["answer", "Hi"])
    add("right", "an empty think block and nothing", "<think>\n\n</think>\n\n")
    add("right", "thinking", "<think>\nhm\n</think>\n\nHi", ["thinking", "hm"], ["answer", "Hi"])
    add(
        "right",
        "thinking opened by the prompt",
        "hm\n</think>\n\nHi",
        ["thinking", "hm"],
        ["answer", "Hi"],
        thinking=True,
    )
    add(
        "right",
        "thinking opened once more",
        "<think>\nhm\n</think>\n\nHi",
        ["thinking", "hm"],
        ["answer", "Hi"],
        thinking=True,
    )
    add("right", "no blank lines", "<think>hm</think>Hi", ["thinking", "hm"], ["answer", "Hi"])
    add(
        "right",
        "many blank lines",
        "<think>\n\n\nhm\n\n\n</think>\n\n\n\nHi",
        ["thinking", "hm"],
        ["answer", "Hi"],
    )
    add(
        "right",
        "blank lines inside stay",
        "<think>\na\n\nb\n</think>\n\nc\n\nd",
        ["thinking", "a\n\nb"],
        ["answer", "c\n\nd"],
    )
    add(
        "right",
        "indentation stays",
        "<think>\n  a\n</think>\n\n    code",
        ["thinking", "  a"],
        ["answer", "    code"],
    )
    add("right", "only thinking", "<think>\nhm", ["thinking", "hm"])
    add("right", "thinking cut off", "and then", ["thinking", "and then"], thinking=True)
    add("right", "one call", block(PARIS), PARIS_CALL)
    add("right", "a call on one line", f"<tool_call>{PARIS}</tool_call>", PARIS_CALL)
    add("right", "a call in many lines", block(json.dumps(json.loads(PARIS), indent=4)), PARIS_CALL)
    add(
        "right",
        "thinking and a call",
        f"<think>\nhm\n</think>\n\n{block(PARIS)}",
        ["thinking", "hm"],
        PARIS_CALL,
    )
    add("right", "text before a call", f"I look.\n{block(PARIS)}", ["answer", "I look."], PARIS_CALL)
    add(
        "right", "text before on the same line", f"I look. {block(PARIS)}", ["answer", "I look. "], PARIS_CALL
    )
    add("right", "text after a call", f"{block(PARIS)}\nDone.", PARIS_CALL, ["answer", "Done."])
    add("right", "two calls", f"{block(PARIS)}\n{block(OSLO)}", PARIS_CALL, OSLO_CALL)
    add("right", "two calls without a line break", f"{block(PARIS)}{block(OSLO)}", PARIS_CALL, OSLO_CALL)
    add("right", "the same call twice", f"{block(PARIS)}\n{block(PARIS)}", PARIS_CALL, PARIS_CALL)
    add(
        "right",
        "text between calls",
        f"{block(PARIS)}\nand\n{block(OSLO)}",
        PARIS_CALL,
        ["answer", "and"],
        OSLO_CALL,
    )
    add(
        "right",
        "text everywhere",
        f"a\n\n{block(PARIS)}\n\nb\n\n{block(OSLO)}\n\nc",
        ["answer", "a"],
        PARIS_CALL,
        ["answer", "b"],
        OSLO_CALL,
        ["answer", "c"],
    )
    add("right", "five calls", "\n".join([block(PARIS)] * 5), *[PARIS_CALL] * 5)
    add(
        "right",
        "thinking after a call",
        f"{block(PARIS)}\n<think>\nhm\n</think>\n\nok",
        PARIS_CALL,
        ["thinking", "hm"],
        ["answer", "ok"],
        either_way=False,
    )
    add("right", "arguments first", block('{"arguments": {"city": "Paris"}, "name": "get_time"}'), PARIS_CALL)
    add(
        "right",
        "a call with an id",
        block('{"id": "1", "name": "get_time", "arguments": {"city": "Paris"}}'),
        PARIS_CALL,
    )
    add(
        "right",
        "no arguments needed",
        block('{"name": "list_files", "arguments": {}}'),
        ["call", "list_files", {}],
    )
    add(
        "right",
        "any name will do",
        block('{"name": "other", "arguments": {}}'),
        ["call", "other", {}],
        tools=None,
    )
    nested = {"stops": [{"a": [1, [2, {"b": None}]]}], "options": {"x": {"y": [True, False]}}}
    add(
        "right",
        "nested arguments",
        block(json.dumps({"name": "plan", "arguments": nested})),
        ["call", "plan", nested],
    )
    numbers = {"days": -3, "price": 1.5e-7, "limit": 123456789012345678901234567890}
    add(
        "right",
        "numbers",
        block(json.dumps({"name": "plan", "arguments": numbers})),
        ["call", "plan", numbers],
    )
    add(
        "right",
        "arguments named name",
        block('{"name": "plan", "arguments": {"name": "x", "arguments": {}}}'),
        ["call", "plan", {"name": "x", "arguments": {}}],
    )
    add(
        "right",
        "no tools: the tag is text",
        f"A call: {block(PARIS)}",
        ["answer", f"A call: {block(PARIS)}"],
        tools={},
        either_way=False,
    )
    lines[-1]["format"] = None


def add_mentions():
    for note, before, after in [
        ("inside thinking", "<think>\n", "\n</think>\n\nok"),
        ("inside thinking, then more", "<think>\nI could say ", " but no\n</think>\n\nok"),
        ("last in thinking", "<think>\nhm ", "</think>\n\nok"),
    ]:
        for kind, body in [
            ("a call", block(PARIS)),
            ("half a call", f"<tool_call>\n{PARIS[:20]}"),
            ("an opening tag", "<tool_call>"),
            ("a closing tag", "</tool_call>"),
        ]:
            thought = (before.removeprefix("<think>") + body + after.split("</think>")[0]).strip("\n")
            add("hostile", f"{kind} {note}", before + body + after, ["thinking", thought], ["answer", "ok"])
    for fence in ["```", "```xml", "~~~", "````", "  ```json", "> ```"]:
        close = re.match(r"[ >]*[`~]+", fence)[0]
        text = f"Like this:\n{fence}\n{block(PARIS)}\n{close}\nso."
        add("hostile", f"a call in a fence opened by {fence!r}", text, ["answer", text])
    text = f"````\n```\n{block(PARIS)}\n```\n{block(OSLO)}\n````"
    add("hostile", "a fence in a longer fence", text, ["answer", text])
    text = f"```\n{block(PARIS)}"
    add("hostile", "a call in a fence never closed", text, ["answer", text])
    add(
        "right",
        "a call behind a closed fence",
        f"```\nx\n```\n{block(PARIS)}",
        ["answer", "```\nx\n```"],
        PARIS_CALL,
    )
    add("right", "a call behind a code span", f"Use `x`:\n{block(PARIS)}", ["answer", "Use `x`:"], PARIS_CALL)
    add(
        "right",
        "a call behind a lone backtick",
        f"Use ` so:\n{block(PARIS)}",
        ["answer", "Use ` so:"],
        PARIS_CALL,
    )
    for tag in ["<think>", "</think>", "<tool_call>", "</tool_call>"]:
        text = f"The tag `{tag}` is special."
        add("hostile", f"{tag} in a code span", text, ["answer", text])
        text = f"```\n{tag}\n```"
        add("hostile", f"{tag} in a fence", text, ["answer", text])
    text = "Say `<tool_call>" + PARIS + "</tool_call>` to call."
    add("hostile", "a call in a code span", text, ["answer", text])
    text = "Double ``<tool_call>`` and `<think>x</think>`."
    add("hostile", "tags in code spans", text, ["answer", text])
    text = "The <tool_call> tag opens and </tool_call> closes."
    add("hostile", "tags mentioned without code marks", text, ["answer", text])
    text = "It starts with <tool_call> and so on"
    add("hostile", "an opening tag mentioned", text, ["answer", text])
    add(
        "hostile",
        "an opening tag at the end",
        "It starts with <tool_call>",
        ["answer", "It starts with <tool_call>"],
    )
    add(
        "hostile",
        "a mention, then a call",
        f"The <tool_call> tag:\n{block(PARIS)}",
        ["answer", "The <tool_call> tag:"],
        PARIS_CALL,
    )
    for text in [
        f"<think>no</think>\n{block(PARIS)}",
        block(PARIS),
        f"{PARIS}\n</tool_call>",
        "a </think> b",
    ]:
        add("hostile", "spelled tags copied from a page", text, ["answer", text], spelled=True)
    for text in [f"a {block(PARIS)} b", "x</think>y <think>z"]:
        add(
            "hostile",
            "spelled tags copied while thinking",
            text,
            ["thinking", text],
            spelled=True,
            thinking=True,
        )
    add("hostile", "a closing tag too many", f"{block(PARIS)}</tool_call>ok", PARIS_CALL, ["answer", "ok"])
    add("hostile", "a closing tag alone", "a</tool_call>b", ["answer", "ab"])
    add(
        "hostile",
        "the end of thinking twice",
        "<think>\na\n</think>\n\n</think>\n\nb",
        ["thinking", "a"],
        ["answer", "b"],
    )
    add("hostile", "the end of thinking alone", "</think>\n\nb", ["answer", "b"])
    add(
        "hostile",
        "thinking begun in the answer",
        "a<think>b</think>c",
        ["answer", "a"],
        ["thinking", "b"],
        ["answer", "c"],
        either_way=False,
    )
    add(
        "hostile",
        "other control tokens in the answer",
        "a<|fim_pad|>b<|im_start|>c",
        ["answer", "abc"],
        either_way=False,
    )
    add(
        "hostile",
        "other control tokens in thinking",
        "a<|fim_pad|>b",
        ["thinking", "ab"],
        thinking=True,
        either_way=False,
    )
    text = "```\n<|im_start|>user\n```"
    add("hostile", "other control tokens in a fence", text, ["answer", text])
    add("hostile", "JSON without tags is an answer", PARIS, ["answer", PARIS])
    add(
        "hostile",
        "a lookalike tag",
        "<tool-call>{}</tool-call> <thinking>",
        ["answer", "<tool-call>{}</tool-call> <thinking>"],
    )
    add("hostile", "half a tag at the end", "a <tool_ca", ["answer", "a <tool_ca"])
    add("hostile", "tags in capitals", "<THINK>a</THINK>", ["answer", "<THINK>a</THINK>"])
    add(
        "hostile",
        "thinking inside a call",
        f"<tool_call>\n<think>\n{PARIS}\n</tool_call>",
        PARIS_CALL,
        either_way=False,
    )


def add_broken():
    """Broken calls that can be read in one way only."""
    good = {"name": "plan", "arguments": {"days": 2, "quick": True, "note": None}}
    call = ["call", "plan", good["arguments"]]
    for note, body in {
        "Python literals": '{"name": "plan", "arguments": {"days": 2, "quick": True, "note": None}}',
        "single quotes": "{'name': 'plan', 'arguments': {'days': 2, 'quick': true, 'note': null}}",
        "mixed quotes": "{'name': \"plan\", \"arguments\": {'days': 2, 'quick': true, 'note': null}}",
        "no quotes around keys": '{name: "plan", arguments: {days: 2, quick: true, note: null}}',
        "a trailing comma": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null,}}',
        "trailing commas": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null,},}',
        "a comma missing": '{"name": "plan", "arguments": {"days": 2 "quick": true "note": null}}',
        "a comma missing between the two": '{"name": "plan" "arguments": {"days": 2, "quick": true, "note": null}}',
        "one bracket missing": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}',
        "both brackets missing": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null',
        "a bracket too many": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}}}',
        "brackets too many": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}}]}}',
        "a fence inside": '```json\n{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}}\n```',
        "in a list": '[{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}}]',
        "named parameters": '{"name": "plan", "parameters": {"days": 2, "quick": true, "note": null}}',
        "named args": '{"name": "plan", "args": {"days": 2, "quick": true, "note": null}}',
        "in a function": '{"type": "function", "function": {"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}}}',
        "in a function, as a string": '{"type": "function", "function": {"name": "plan", "arguments": "{\\"days\\": 2, \\"quick\\": true, \\"note\\": null}"}}',
        "arguments not nested": '{"name": "plan", "days": 2, "quick": true, "note": null}',
        "arguments as a Python string": '{"name": "plan", "arguments": "{\'days\': 2, \'quick\': True, \'note\': None}"}',
        "spaces around the name": '{"name": " plan ", "arguments": {"days": 2, "quick": true, "note": null}}',
        "the same key twice, same value": '{"name": "plan", "arguments": {"days": 2, "days": 2, "quick": true, "note": null}}',
        "words behind it": '{"name": "plan", "arguments": {"days": 2, "quick": true, "note": null}}\nI called it.',
    }.items():
        add("broken", note, block(body), call)
        add("broken", f"{note}, and more follows", f"{block(body)}\n{block(PARIS)}", call, PARIS_CALL)
    for note, body in {
        "missing arguments": '{"name": "list_files"}',
        "null arguments": '{"name": "list_files", "arguments": null}',
        "arguments as an empty string": '{"name": "list_files", "arguments": ""}',
        "arguments as a string of {}": '{"name": "list_files", "arguments": "{}"}',
        "missing arguments and bracket": '{"name": "list_files"',
    }.items():
        add("broken", note, block(body), ["call", "list_files", {}])
    for note, content, value in [
        ("raw line breaks in a string", "a\nb", "a\nb"),
        ("a raw tab in a string", "a\tb", "a\tb"),
        ("an escape JSON does not know", r"\d+\.", "\\d+\\."),
        ("an escaped single quote", r"it\'s", "it's"),
        ("half a surrogate pair", r"a\ud83d!", "a\ufffd!"),
        ("a whole surrogate pair", r"\ud83e\udd9c", "🦜"),
        ("a broken unicode escape", r"\u12G4", "\\u12G4"),
    ]:
        body = f'{{"name": "write_file", "arguments": {{"path": "x", "content": "{content}"}}}}'
        add("broken", note, block(body), ["call", "write_file", {"path": "x", "content": value}])
    add("broken", "two calls in one block", block(f"{PARIS}\n{OSLO}"), PARIS_CALL, OSLO_CALL)
    add("broken", "two calls in one block, with a comma", block(f"{PARIS},\n{OSLO}"), PARIS_CALL, OSLO_CALL)
    add("broken", "a list of two calls", block(f"[{PARIS}, {OSLO}]"), PARIS_CALL, OSLO_CALL)
    add("broken", "the last call not closed", f"ok\n<tool_call>\n{PARIS}", ["answer", "ok"], PARIS_CALL)
    add("broken", "the last call not closed, blank lines", f"<tool_call>\n{PARIS}\n\n", PARIS_CALL)
    add("broken", "the first call not closed", f"<tool_call>\n{PARIS}\n{block(OSLO)}", PARIS_CALL, OSLO_CALL)
    add("broken", "no call closed", f"<tool_call>\n{PARIS}\n<tool_call>\n{OSLO}", PARIS_CALL, OSLO_CALL)
    add("broken", "opened twice", f"<tool_call>\n{block(PARIS)}", ["error", "", "ends before"], PARIS_CALL)
    add("broken", "closed twice", f"{block(PARIS)}\n</tool_call>", PARIS_CALL)


def add_hopeless():
    """Broken calls with no clear meaning: the model gets an error to correct."""
    for note, body, name, says in [
        ("nothing in it", "", "", "ends before"),
        ("words", "get the time", "", "expected a value"),
        ("a Python call", 'get_time(city="Paris")', "", "expected a value"),
        ("a number", "42", "", "not a JSON object"),
        ("a string", '"get_time"', "", "not a JSON object"),
        ("an empty object", "{}", "", 'no "name"'),
        ("an empty list", "[]", "", "empty"),
        ("no name", '{"arguments": {"city": "Paris"}}', "", 'no "name"'),
        ("an empty name", '{"name": "", "arguments": {}}', "", 'no "name"'),
        ("a name that is no string", '{"name": 5, "arguments": {}}', "", 'no "name"'),
        (
            "a name not offered",
            '{"name": "get_tme", "arguments": {}}',
            "get_tme",
            "calculator, get_time, list_files",
        ),
        ("a name in other case", '{"name": "Get_Time", "arguments": {}}', "Get_Time", "The tools are"),
        (
            "a name with a prefix",
            '{"name": "functions.get_time", "arguments": {}}',
            "functions.get_time",
            "The tools are",
        ),
        (
            "arguments in a list",
            '{"name": "get_time", "arguments": ["Paris"]}',
            "get_time",
            "not a JSON object",
        ),
        ("arguments a number", '{"name": "get_time", "arguments": 5}', "get_time", "not a JSON object"),
        ("arguments a word", '{"name": "get_time", "arguments": "Paris"}', "get_time", "not a JSON object"),
        (
            "arguments a string of a list",
            '{"name": "get_time", "arguments": "[1]"}',
            "get_time",
            "not a JSON object",
        ),
        (
            "arguments given twice",
            '{"name": "get_time", "arguments": {}, "parameters": {}}',
            "get_time",
            "twice",
        ),
        ("a key twice", '{"name": "get_time", "arguments": {"city": "a", "city": "b"}}', "get_time", "twice"),
        ("a name twice", '{"name": "get_time", "name": "list_files", "arguments": {}}', "get_time", "twice"),
        ("loose keys nobody knows", '{"name": "get_time", "town": "Paris"}', "get_time", 'no "arguments"'),
        (
            "a quote inside a string",
            '{"name": "calculator", "arguments": {"expression": "say "hi""}}',
            "calculator",
            "expected",
        ),
        ("no colon", '{"name": "get_time", "arguments" {"city": "Paris"}}', "get_time", '":" after'),
        ("a value missing", '{"name": "get_time", "arguments": {"city": }}', "get_time", "expected a value"),
        (
            "a word without quotes",
            '{"name": "get_time", "arguments": {"city": Paris}}',
            "get_time",
            "expected a value",
        ),
        ("an expression", '{"name": "plan", "arguments": {"days": 1+1}}', "plan", "expected a value"),
        ("not a number", '{"name": "plan", "arguments": {"price": NaN}}', "plan", "expected a value"),
        (
            "an infinite number",
            '{"name": "plan", "arguments": {"price": 1e999}}',
            "plan",
            "not a JSON number",
        ),
        (
            "nested too deeply",
            '{"name": "plan", "arguments": ' + '{"a":' * 3000 + "1" + "}" * 3001,
            "plan",
            "deeply",
        ),
        ("the name's quote missing", '{"name: "get_time", "arguments": {}}', "get_time", "expected"),
        ("an equals sign", '{"name="get_time", "arguments": {"city": "Paris"}}', "", "expected"),
        (
            "a string not closed",
            '{"name": "get_time", "arguments": {"city": "Paris}}',
            "get_time",
            "closing quote",
        ),
        ("a string of the name not closed", '{"name": "get_time, "arguments": {}}', "get_time,", "expected"),
        ("ellipsis", '{"name": "get_time", "arguments": {...}}', "get_time", "expected a key"),
    ]:
        add("hopeless", note, block(body), ["error", name, says])
        add(
            "hopeless",
            f"{note}, then a good call",
            f"{block(body)}\n{block(PARIS)}",
            ["error", name, says],
            PARIS_CALL,
        )
    unclosed = '<tool_call>{"name": "get_time", "arguments": {"city": "Paris}}</tool_call>'
    for note, after in [("quotes", 'He said "hi".'), ("a quote and a call", f'"\n{block(PARIS)}')]:
        says = [["answer", 'He said "hi".']] if "hi" in after else [["answer", '"'], PARIS_CALL]
        add(
            "hopeless",
            f"a string not closed, then {note}",
            unclosed + after,
            ["error", "get_time", "closing"],
            *says,
        )
    body = '{"name": "get_time", "arguments": {"city": it\'s}}'
    text = f"{block(body)} The cats', ok"
    add(
        "hopeless",
        "a lone quote",
        text,
        ["error", "get_time", "expected a value"],
        ["answer", " The cats', ok"],
    )
    body = '{"name": "calculator", "arguments": {"expression": "a\nb </tool_call> c", "x": 1}}'
    call = ["call", "calculator", {"expression": "a\nb </tool_call> c", "x": 1}]
    add("broken", "a raw line break before a closing tag in a string", block(body), call)
    for cut in (18, 26, 30, 41, 48, 50):
        name = "get_time" if cut > 18 else ""
        add("hopeless", f"cut off after {cut} characters", f"<tool_call>\n{PARIS[:cut]}", ["error", name, ""])
    add(
        "hopeless",
        "cut off before the last bracket",
        f"<tool_call>\n{PARIS[:-1]}",
        ["error", "get_time", "cut off"],
    )
    add("hopeless", "cut off behind the opening tag", "<tool_call>", ["error", "", "ends before"])
    text = block('{"name": "other", "arguments": {}}')
    add("hopeless", "no tool is offered", text, ["error", "other", "no tools are available"], tools={})


def add_xml():
    """Calls in the XML format of Qwen3-Coder."""
    paris = xml_body("get_time", city="Paris")
    add("right", "XML: one call", block(paris), PARIS_CALL, xml=True)
    add(
        "right",
        "XML: two calls",
        f"{block(paris)}\n{block(xml_body('get_time', city='Oslo'))}",
        PARIS_CALL,
        OSLO_CALL,
        xml=True,
    )
    add(
        "right", "XML: text before", f"I look.\n\n{block(paris)}", ["answer", "I look."], PARIS_CALL, xml=True
    )
    add(
        "right",
        "XML: no parameters",
        block("<function=list_files>\n</function>"),
        ["call", "list_files", {}],
        xml=True,
    )
    add(
        "right",
        "XML: on one line",
        "<tool_call><function=get_time><parameter=city>Paris</parameter></function></tool_call>",
        PARIS_CALL,
        xml=True,
    )
    for key, text, value in [
        ("days", "3", 3), ("days", "-3", -3), ("price", "2.5", 2.5), ("price", "2", 2), ("quick", "true", True),
        ("quick", "True", True), ("quick", "false", False), ("stops", '["a", 1]', ["a", 1]), ("stops", "['a', 1]", ["a", 1]),
        ("options", '{"a": 1}', {"a": 1}), ("options", "{'a': None}", {"a": None}), ("note", "null", None), ("note", "5", "5"),
        ("note", "nullify", "nullify"), ("limit", "null", None), ("limit", "7", 7), ("days", "three", "three"),
        ("stops", "a, b", "a, b"), ("unknown", "5", "5"),
    ]:  # fmt: skip
        add(
            "right",
            f"XML: {key} is {text}",
            block(xml_body("plan", **{key: text})),
            ["call", "plan", {key: value}],
            xml=True,
        )
    add(
        "right",
        "XML: no schema, all is text",
        block(xml_body("f", a="5")),
        ["call", "f", {"a": "5"}],
        xml=True,
        tools=None,
    )
    add("broken", "XML without its tags", f"{paris}", PARIS_CALL, xml=True)
    add(
        "broken",
        "XML without its opening tag",
        f"I look.\n{paris}\n</tool_call>",
        ["answer", "I look."],
        PARIS_CALL,
        xml=True,
    )
    add("broken", "XML not closed", f"<tool_call>\n{paris}", PARIS_CALL, xml=True)
    add(
        "broken",
        "XML: function not closed",
        f"<tool_call>\n{paris.removesuffix('</function>')}</tool_call>",
        PARIS_CALL,
        xml=True,
    )
    add(
        "broken",
        "XML: parameter not closed",
        block(paris.replace("</parameter>\n", "")),
        PARIS_CALL,
        xml=True,
    )
    body = "<function=write_file>\n<parameter=path>\na\n<parameter=content>\nb\n</parameter>\n</function>"
    add(
        "broken",
        "XML: first parameter not closed",
        block(body),
        ["call", "write_file", {"path": "a", "content": "b"}],
        xml=True,
    )
    add(
        "broken",
        "XML: names in attributes",
        block('<function name="get_time"><parameter name="city">Paris</parameter></function>'),
        PARIS_CALL,
        xml=True,
    )
    add(
        "broken",
        "XML: quoted names",
        block('<function="get_time">\n<parameter="city">\nParis\n</parameter>\n</function>'),
        PARIS_CALL,
        xml=True,
    )
    add(
        "broken",
        "XML: arguments as JSON",
        block('<function=get_time>\n{"city": "Paris"}\n</function>'),
        PARIS_CALL,
        xml=True,
    )
    add(
        "broken",
        "XML: a name and JSON",
        block('<function>get_time</function>\n{"city": "Paris"}'),
        PARIS_CALL,
        xml=True,
    )
    add("broken", "JSON from a model that writes XML", block(PARIS), PARIS_CALL, xml=True)
    add("broken", "XML from a model that writes JSON", block(paris), PARIS_CALL)
    add(
        "broken",
        "XML: the first call not closed",
        f"<tool_call>\n{paris}\n{block(xml_body('get_time', city='Oslo'))}",
        PARIS_CALL,
        OSLO_CALL,
        xml=True,
    )
    add(
        "hopeless",
        "XML: no function",
        block("<parameter=city>\nParis\n</parameter>"),
        ["error", "", "no function name"],
        xml=True,
    )
    add(
        "hopeless",
        "XML: a name not offered",
        block(xml_body("get_tme", city="Paris")),
        ["error", "get_tme", "The tools are"],
        xml=True,
    )
    body = "<function=get_time>\n<parameter=city>\na\n</parameter>\n<parameter=city>\nb\n</parameter>\n</function>"
    add("hopeless", "XML: a parameter twice", block(body), ["error", "get_time", "twice"], xml=True)
    for text in ["a </tool_call>\nb", "a <tool_call> b </tool_call> c <tool_call>"]:
        body = xml_body("write_file", path="x", content=text)
        add(
            "hostile",
            "XML: loose tags in a value",
            block(body),
            ["call", "write_file", {"path": "x", "content": text}],
            xml=True,
        )
    body = "<function=write_file>\n<parameter=path>\n/tm"
    add("hopeless", "XML: closed in a value", block(body), ["error", "write_file", "cut off"], xml=True)
    add(
        "hopeless",
        "XML: closed in a value, then a good call",
        f"{block(body)}\n{block(paris)}",
        ["error", "write_file", "cut off"],
        PARIS_CALL,
        xml=True,
    )
    for rest in ["", "\n</function>", "\nand so on"]:
        text = f"<tool_call>\n<function=write_file>\n<parameter=content>\nWrite </function>{rest}"
        error = ["error", "write_file", "cut off"]
        add("hopeless", f"XML: cut off in a value that quotes a mark{rest!r}", text, error, xml=True)
    add(
        "hopeless",
        "XML: cut off in a value",
        "<tool_call>\n<function=write_file>\n<parameter=path>\n/tm",
        ["error", "write_file", "cut off"],
        xml=True,
    )
    add(
        "hopeless",
        "XML: cut off behind a value",
        "<tool_call>\n<function=write_file>\n<parameter=path>\n/tmp\n</parameter>\n",
        ["error", "write_file", "cut off"],
        xml=True,
    )
    text = f"```\n{paris}\n```"
    add("hostile", "XML in a fence", text, ["answer", text], xml=True)
    add(
        "hostile",
        "XML in thinking",
        f"<think>\n{paris}\n</think>\n\nok",
        ["thinking", paris],
        ["answer", "ok"],
        xml=True,
    )
    text = f"Write {paris} to call."
    add("hostile", "XML in mid-line without its tags", text, ["answer", text], xml=True)
    text = xml_body("rm", path="/")
    add("hostile", "XML without its tags, not offered", text, ["answer", text], xml=True)
    quoted = f"A call looks so:\n{block(paris)}\nand that is all."
    body = xml_body("write_file", path="doc.md", content=quoted)
    add(
        "hostile",
        "XML: a call quoted in a value",
        block(body),
        ["call", "write_file", {"path": "doc.md", "content": quoted}],
        xml=True,
    )
    body = xml_body("write_file", path="doc.md", content="A </tool_call> ends it.")
    add(
        "hostile",
        "XML: a closing tag in a value",
        block(body),
        ["call", "write_file", {"path": "doc.md", "content": "A </tool_call> ends it."}],
        xml=True,
    )


add_right()
add_mentions()
add_broken()
add_hopeless()
add_xml()
add_values()
if __name__ == "__main__":
    out = Path(__file__).with_name("outputs.jsonl")
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} outputs")

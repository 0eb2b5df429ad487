"""What servers send, as text for a model that reads text only: everything else is named, not shown."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mlx_qwen3.tools.base import ToolOutput


def to_output(result: CallToolResult) -> ToolOutput:
    """A call's result; its structured form where there is no other."""
    text = to_text(result.content)
    if not text.strip() and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if not text.strip():
        text = "It failed and did not say why." if result.is_error else "Done."
    return ToolOutput(text, result.is_error)


def to_text(blocks: Iterable[ContentBlock]) -> str:
    """The blocks one below the other."""
    return "\n".join(map(_block_text, blocks))


def _block_text(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.type}, {block.mime_type}, {_bytes_of(block.data)}: cannot be shown here]"
        case ResourceLink():
            about = [block.title or block.name, block.mime_type or "", block.description or ""]
            return f"[resource {block.uri}: {', '.join(filter(None, about))}]"
        case EmbeddedResource():
            return resource_text(block.resource)


def resource_text(resource: TextResourceContents | BlobResourceContents) -> str:
    """A resource under its address."""
    if isinstance(resource, TextResourceContents):
        return f"[resource {resource.uri}]\n{resource.text}"
    kind = resource.mime_type or "of unknown type"
    return f"[resource {resource.uri}, {kind}, {_bytes_of(resource.blob)}: cannot be shown here]"


def _bytes_of(base64: str) -> str:
    return f"{len(base64) * 3 // 4:,} bytes"

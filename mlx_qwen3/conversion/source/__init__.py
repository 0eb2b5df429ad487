"""The checkpoint to convert: folders, the hub, GGUF files; its tensors, read a chunk at a time."""

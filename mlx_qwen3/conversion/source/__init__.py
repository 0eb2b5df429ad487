"""The source checkpoint (a folder, a hub repository or a GGUF file) and its tensors, read in chunks."""

"""KV caches: full and sliding-window, plain and quantized, shared by prefix and saved on disk."""

"""Commands for searching: `embed` and `rerank`."""

"""Logits to tokens: sampling, decoding, stop conditions, speculation."""

"""Speculative decoding: drafters, how much they draft, and verifying it. The same tokens as without."""

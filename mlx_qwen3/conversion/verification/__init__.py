"""Compares a converted checkpoint with its source: every tensor, and the predictions on a text."""

"""Shards and metadata of the converted checkpoint, put in place only when whole."""

"""What requests leave for later ones: KV caches in memory and on disk, and what clients do not send back."""

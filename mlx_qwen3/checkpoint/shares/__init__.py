"""One rank's part of a checkpoint: which files it needs, and loading no more than its slices."""

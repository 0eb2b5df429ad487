"""The doctor at the terminal: when asked, and once on a new machine."""

"""One request on an engine: its prompts, its jobs, and how its events reach the event loop."""

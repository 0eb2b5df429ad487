"""What an engine is loaded with: its options, and the model that drafts for another."""

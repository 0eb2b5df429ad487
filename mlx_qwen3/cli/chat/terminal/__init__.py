"""What the chat draws on a terminal and reads from it."""

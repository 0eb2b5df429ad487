"""The Model Context Protocol: servers, their tools, and what they answer."""

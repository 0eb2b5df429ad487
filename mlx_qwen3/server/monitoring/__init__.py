"""What operators of the server look at: counts for Prometheus, and what it is doing now."""

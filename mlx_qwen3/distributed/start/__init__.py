"""How ranks find each other: where rank 0 is, and what watches them while they meet."""

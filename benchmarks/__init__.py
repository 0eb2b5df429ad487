"""Side by side with mlx-lm on the same checkpoint, made here with random weights."""

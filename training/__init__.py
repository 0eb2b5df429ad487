"""Makes the built-in demo checkpoint: data, tokenizer, training, evaluation."""

"""How the built-in demo checkpoint was made: data, tokenizer, training, evaluation."""

"""Weights that another program quantized: FP8, AWQ, GPTQ and compressed-tensors."""

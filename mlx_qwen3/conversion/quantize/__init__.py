"""Quantization methods: searched scales, GPTQ, mixed bit widths."""

"""How matrices are quantized: searched scales, GPTQ on a calibration text, and the bits of each matrix."""

"""Does the converted checkpoint say what the source said? Tensor by tensor and as a whole."""

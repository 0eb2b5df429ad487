"""Whole passes of the model on a Linux CPU, by kernels and numpy's BLAS."""

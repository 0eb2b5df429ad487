"""What differs between CPU, Metal and CUDA: the device, its memory, and products that are fast on a CPU."""

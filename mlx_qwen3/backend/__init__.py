"""What differs between CPU, Metal and CUDA: device, memory, and the products that are fast on a CPU."""

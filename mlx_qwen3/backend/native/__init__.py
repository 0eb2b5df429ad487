"""Machine code for Linux CPUs, made with LLVM: products over weights as stored, and the steps between them.

`library.load()` compiles the kernels that a model needs, or finds them in the cache folder. A kernel computes
on memory addresses; `program.py` runs several of them, one after another, on one pool of threads.
"""

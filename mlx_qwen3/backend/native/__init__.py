"""Machine code for Linux CPUs: products over weights as stored, and the steps between them.

`kernels/` writes and compiles them with LLVM, once on a machine; `library.py` finds them in the cache folder
from then on. A kernel computes on memory addresses; `program.py` runs several of them, one after another, on
one pool of threads.
"""

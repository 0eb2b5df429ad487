"""The kernels' source, over LLVM's IR builder. Imported only where kernels are compiled."""

"""From kernels to machine code: LLVM IR written as text, one module for a program."""

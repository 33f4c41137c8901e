"""What the kernels share: the launch on GPUs, the choice of an engine, threads, memory that is used again."""

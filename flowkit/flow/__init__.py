"""The room of the kernel: what authors touch. Standard library only."""

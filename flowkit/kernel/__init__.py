"""What runs between a worker and a notebook's code: scripts, run by their path in the Python of the kernel."""

"""The node library: plain functions, a module a family. They run in the kernel, and know of no store and no worker."""

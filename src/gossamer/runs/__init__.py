"""The run folder: configuration, metrics, checkpoints, and the lock of the process that writes them."""

"""A run directory: written, read, and its checkpoints."""

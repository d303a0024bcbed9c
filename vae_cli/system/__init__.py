"""Files, locks, caches, memory and threads."""

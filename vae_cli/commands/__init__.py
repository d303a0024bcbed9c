"""The work of the console scripts: a config in, files out."""

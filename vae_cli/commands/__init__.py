"""What the console scripts do: a config in, files out."""

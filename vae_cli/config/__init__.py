"""From a command line to a plain, checked config."""

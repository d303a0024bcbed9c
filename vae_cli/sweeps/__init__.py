"""Many trainings by one command."""

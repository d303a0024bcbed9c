"""Many trainings by one command: `vae-train -m …`."""

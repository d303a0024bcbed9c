"""A page on this machine to move through a trained model's latent space by hand, and the server behind it."""

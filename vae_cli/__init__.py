"""Train, score and sample variational autoencoders from a shell."""

__version__ = "0.1.0"

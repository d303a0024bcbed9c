"""New images of a trained model, and pictures of it."""

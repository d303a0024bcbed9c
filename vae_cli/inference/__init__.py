"""A trained model in use: its data, and the object that Python users get."""

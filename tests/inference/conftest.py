"""A trained model of digits, the digits, and a folder of them."""

from tests.support.trained_digits import digits, folder, run  # noqa: F401

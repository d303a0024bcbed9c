"""A finished training that several tests look at."""

from tests.support.training import digits_run  # noqa: F401

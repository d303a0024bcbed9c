"""A training whose checkpoint the tests change."""

from tests.support.damage import contents, run  # noqa: F401

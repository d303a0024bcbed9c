"""Trained models of digits, and servers of their pages."""

from tests.support.exploring import conditional, conditional_run, labeled_site, plain, plain_run, site  # noqa: F401

"""Grids, charts, pages and tables."""

"""Loihi through Lava."""

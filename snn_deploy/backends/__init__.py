"""Backends: one folder per target, found through entry points."""

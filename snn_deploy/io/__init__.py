"""Readers of untrusted files and writers that never leave half a file behind."""

"""Engines: reference (float, dense, obvious), event (fast, sparse), fixed (bit-exact integers)."""

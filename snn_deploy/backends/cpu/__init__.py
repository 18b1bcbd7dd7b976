"""The CPU reference."""

"""Passes: Network to Network, each leaving it valid; then quantization into an Arithmetic."""

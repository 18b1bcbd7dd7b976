"""Code that Lava's own interpreter runs: needs nothing of ours, and Python 3.10 or newer."""

"""Lava Processes of our own. Lava's compiler executes every file of this folder."""

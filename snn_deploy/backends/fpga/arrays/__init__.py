"""Accelerators of the literature as cycle models: they run the same tickets and spikes as ours."""

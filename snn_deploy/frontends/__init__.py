"""Live torch modules to tickets; ``modules`` and ``state`` import torch, so import them lazily."""

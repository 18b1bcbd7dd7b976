"""Training sparse spiking networks (tickets); its modules import torch, so import them lazily."""

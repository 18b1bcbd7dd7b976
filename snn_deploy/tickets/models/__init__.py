"""The networks that ``train`` offers; its modules import torch, so import them lazily."""

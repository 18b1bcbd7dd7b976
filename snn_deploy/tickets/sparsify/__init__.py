"""What decides, update by update, which weights are nonzero; its modules import torch."""

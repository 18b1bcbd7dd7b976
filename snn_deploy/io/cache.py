"""The user's cache folder: simulator environments and compiled kernels live there."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "SNN_DEPLOY_CACHE"


def cache_folder() -> Path:
    """Return the cache folder; it need not exist.

    SNN_DEPLOY_CACHE, else XDG_CACHE_HOME/snn-deploy, else ~/.cache/snn-deploy.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser().absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "snn-deploy"
    return Path.home() / ".cache" / "snn-deploy"

"""Tools that some tests need: absent ones skip a test, unless the caller demands them."""

from __future__ import annotations

import os

import pytest

VARIABLE = "SNN_DEPLOY_REQUIRE"


def require_tool(name: str, available: bool, how: str) -> None:
    """Skip the test if ``available`` is false; fail it if SNN_DEPLOY_REQUIRE lists ``name``.

    how: the command that makes the tool available, shown as the reason.
    """
    if available:
        return
    demanded = {word.strip() for word in os.environ.get(VARIABLE, "").split(",")}
    reason = f"{name} is not available; {how}"
    if name in demanded:
        pytest.fail(f"{reason} ({VARIABLE} demands it)", pytrace=False)
    pytest.skip(reason)

"""Devices as data: what a file says about limits, timing and prices, and from which source."""

from snn_deploy.device.load import load, names
from snn_deploy.device.model import (
    BASES,
    FAMILIES,
    KINDS,
    VALUE_KINDS,
    Device,
    Number,
    Price,
    Source,
    Value,
)
from snn_deploy.device.usage import Lever, MemoryItem, Resource, Usage

__all__ = [
    "BASES",
    "FAMILIES",
    "KINDS",
    "VALUE_KINDS",
    "Device",
    "Lever",
    "MemoryItem",
    "Number",
    "Price",
    "Resource",
    "Source",
    "Usage",
    "Value",
    "load",
    "names",
]

"""Prices of another device: lent, marked, and never mixed with what they do not go with."""

from __future__ import annotations

import pytest

from snn_deploy.budget.price import price
from snn_deploy.device.load import load
from snn_deploy.device.proxy import with_proxy_prices
from snn_deploy.errors import UsageError
from snn_deploy.ir.events import Events

CHARGED = ("synops_quantized", "neuron_updates")
EVENTS = Events({("a", "synops_quantized"): 10, ("a", "neuron_updates"): 4})


def budget(device):
    return price(EVENTS, device, charged=CHARGED, samples=2, duration_s=None, label="x")


def test_loihi2_has_energy_only_when_prices_are_lent():
    own, lender = load("loihi2"), load("loihi1")
    assert budget(own).total is None
    lent = with_proxy_prices(own, lender)
    assert budget(lent).total == budget(lender).total
    assert budget(lent).kind == "proxy"
    assert (lent.priced_as, lent.basis, own.priced_as) == ("loihi1", "chip", "")
    assert all(p.kind == "proxy" for p in lent.prices.values())
    assert lent.prices["hops"].conditions.startswith("price of loihi1; 0.75 V")
    assert set(lent.prices["hops"].sources) <= set(lent.sources)
    assert "synops_quantized" in own.unknown
    assert "synops_quantized" not in lent.unknown
    assert "static_power" in lent.unknown
    assert lent.notes[-1] == "Prices are those of loihi1: a proxy, not this chip's."
    assert lent.sha256 not in (own.sha256, lender.sha256)


def test_prices_of_another_basis_are_refused():
    with pytest.raises(UsageError) as caught:
        with_proxy_prices(load("loihi1"), load("cpu45"))
    assert caught.value.message == "prices of cpu45 do not go with those of loihi1"
    assert caught.value.used == "architecture against chip"
    assert caught.value.hint == (
        "choose a device whose prices have the same basis: snn-deploy targets show NAME"
    )


def test_a_device_that_lacks_nothing_takes_nothing():
    with pytest.raises(UsageError) as caught:
        with_proxy_prices(load("loihi1"), load("loihi1"))
    assert caught.value.message == "loihi1 has no price that loihi1 lacks"
    assert caught.value.hint == "leave --proxy-prices out, or: snn-deploy targets show loihi1"

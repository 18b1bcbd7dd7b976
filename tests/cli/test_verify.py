"""``verify``: both answers, and a broken part is found and named."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.cpu.target import CpuTarget
from snn_deploy.backends.fpga import oracle, tools
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.loihi import environment
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.ir.arrays import adopt
from tests.cli.helpers import run_cli


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_the_cpu_agrees_with_norse(here, model):
    ran = run_cli("verify", f"{model}.pt", "-t", "cpu", "-i", f"{model}.npz")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("verify cpu: 0 mismatches\n")
    assert "norse" in ran.out
    assert "states within 1e-09" in " ".join(ran.out.split())


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_loihi_agrees_with_lava(here, lava, model):
    ran = run_cli("verify", f"{model}.pt", "-t", "loihi", "-i", f"{model}.npz", "--json", "-")
    assert ran.code == 0, ran.err
    verdict = ran.json["verdict"]
    assert verdict["equal"] is True
    assert verdict["proof"]["judge"].startswith("lava-nc ")
    assert verdict["proof"]["tolerance"] == 0
    assert set(verdict["proof"]["mismatches"]) == {"spikes", "u", "v"}
    assert not any(verdict["proof"]["mismatches"].values())
    assert min(verdict["proof"]["values"].values()) > 0
    assert 0 < verdict["fidelity"]["equal_spikes"] <= 1


def test_fpga_agrees_with_its_rtl(here, verilator):
    ran = run_cli("verify", "mlp.pt", "-t", "fpga", "-i", "mlp.npz", "--json", "-")
    assert ran.code == 0, ran.err
    proof = ran.json["verdict"]["proof"]
    assert proof["judge"].startswith("RTL under verilator ")
    assert proof["tolerance"] == 0
    kinds = {"spikes", "u", "v", "cycles", "counters", "results"}
    assert set(proof["mismatches"]) == set(proof["values"]) == kinds
    assert not any(proof["mismatches"].values())
    # Four times, five counters, and three results of every sample and step; of one output.
    figures = proof["samples"] * proof["steps"]
    assert proof["values"]["cycles"] == 2 * 4 * figures
    assert proof["values"]["counters"] == 2 * 5 * figures
    assert proof["values"]["results"] == 3 * figures


def test_fpga_without_verilator_says_how_to_get_it(here, monkeypatch):
    arguments = ("verify", "mlp.pt", "-t", "fpga", "-i", "mlp.npz")
    monkeypatch.setenv("PATH", "")
    ran = run_cli(*arguments)
    assert ran.code == 7
    assert tools.how_to_install("c++") in " ".join(ran.err.split())
    ran = run_cli(*arguments, "--on", "emulator")
    assert ran.code == 0
    assert ran.out.startswith("verify fpga: 0 mismatches (model only)\n")
    assert "model only, no independent simulator ran" in ran.out
    assert "(b) integers against the trained network (measured)" in ran.out


@pytest.mark.parametrize(
    ("kind", "population", "figure"),
    [
        ("cycles", "lif1", "ingested"),
        ("counters", "lif2", "adds"),
        ("results", "lif2", "class"),
    ],
)
def test_a_wrong_figure_of_the_machine_is_found_and_named(
    here, verilator, monkeypatch, kind, population, figure
):
    real = oracle.RtlOracle.run

    def broken(self, program, x):
        trace = real(self, program, x)
        trace.machine[kind][population][figure][1, -1] += 7
        return trace

    monkeypatch.setattr(oracle.RtlOracle, "run", broken)
    arguments = ("verify", "mlp.pt", "-t", "fpga", "-i", "mlp.npz", "-n", "3", "--json", "-")
    ran = run_cli(*arguments)
    assert ran.code == 6
    first = ran.json["verdict"]["proof"]["first"]
    assert (first["population"], first["variable"]) == (population, f"{kind}: {figure}")
    assert (first["sample"], first["neuron"]) == (1, None)
    assert first["judge"] == first["ours"] + 7
    wrong = ran.json["verdict"]["proof"]["mismatches"]
    assert wrong == {name: int(name == kind) for name in wrong}
    message = ran.json["error"]
    assert f"{kind}: {figure} at step" in str(message) and "neuron" not in str(message)


def test_without_a_judge_loihi_is_model_only(here, monkeypatch):
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(here / "cache"))
    monkeypatch.delenv(environment.PYTHON_VARIABLE, raising=False)
    arguments = ("verify", "mlp.pt", "-t", "loihi", "-i", "mlp.npz")
    ran = run_cli(*arguments, "--on", "emulator")
    assert ran.code == 0
    assert "model only" in ran.out
    ran = run_cli(*arguments)
    assert ran.code == 7
    assert "Lava's environment is not set up" in ran.err
    assert "run: snn-deploy setup loihi" in ran.err


def test_twenty_samples_unless_said_otherwise(here):
    data = np.load(here / "mlp.npz")
    np.savez(here / "many.npz", x=np.tile(data["x"], (3, 1)), y=np.tile(data["y"], 3))
    for options, samples in (((), 20), (("-n", "2"), 2)):
        ran = run_cli(
            *("verify", "mlp.pt", "-t", "fpga", "-i", "many.npz", "--on", "emulator"),
            *("--json", "-"),
            *options,
        )
        assert ran.json["verdict"]["lowering"]["samples"] == samples


def _broken_loihi(program):
    first, *rest = program.payload.populations
    broken = replace(first, vth=np.asarray(first.vth) + 1)
    return replace(program.payload, populations=(broken, *rest))


def _broken_cpu(program):
    first, *rest = program.payload.projections
    weight = first.synapses[0].to_dense() if hasattr(first.synapses[0], "to_dense") else None
    weight = np.array(first.synapses[0].weight if weight is None else weight)
    weight.reshape(-1)[0] += 3.0
    from snn_deploy.ir.synapses import Dense

    bias = first.synapses[0].bias
    broken = replace(first, synapses=(Dense(weight=adopt(weight), bias=bias),))
    return replace(program.payload, projections=(broken, *rest))


@pytest.mark.parametrize(
    ("target", "broken"), [(LoihiTarget, _broken_loihi), (CpuTarget, _broken_cpu)]
)
def test_a_broken_program_is_found_and_named(here, monkeypatch, target, broken):
    real = target.lower

    def lower(self, network, qnet, options):
        program = real(self, network, qnet, options)
        return replace(program, payload=broken(program))

    monkeypatch.setattr(target, "lower", lower)
    place = "emulator" if target is LoihiTarget else "norse"
    arguments = ("verify", "mlp.pt", "-t", target.name, "-i", "mlp.npz", "--on", place)
    ran = run_cli(*arguments)
    assert ran.code == 6, ran.err
    assert "error: the simulators disagree" in ran.err
    assert "mlp.pt -> lif1" in ran.err
    assert re.search(r" of neuron \d+ at step \d+ of sample \d+: \S+ there, \S+ here", ran.err)
    assert "hint" in ran.err
    assert "mismatches" in ran.out
    ran = run_cli(*arguments, "--json", "-")
    assert ran.code == 6
    assert ran.json["ok"] is False
    assert ran.json["error"]["kind"] == "mismatch"
    assert (
        ran.json["verdict"]["lowering" if place == "emulator" else "proof"]["first"]["population"]
        == "lif1"
    )


def test_a_broken_memory_image_is_found_and_named(here, monkeypatch):
    from snn_deploy.backends.fpga import decode

    real = decode.decode

    def broken(payload, qnet):
        decoded = real(payload, qnet)
        population = decoded.populations["lif1"]
        worse = {
            **decoded.populations,
            "lif1": replace(population, threshold=population.threshold // 2),
        }
        return replace(decoded, populations=worse)

    monkeypatch.setattr(decode, "decode", broken)
    ran = run_cli("verify", "mlp.pt", "-t", "fpga", "-i", "mlp.npz", "--on", "emulator")
    assert ran.code == 6
    assert "mlp.pt -> lif1" in ran.err
    assert FpgaTarget.name in ran.out


def test_a_broken_judge_is_not_believed(here, lava, monkeypatch):
    from snn_deploy.backends.loihi import oracle as loihi_oracle

    real = loihi_oracle.job_of

    def broken(program, x):
        job = real(program, x)
        first, *rest = job.populations
        return replace(job, populations=(replace(first, dv=np.asarray(first.dv) + 1), *rest))

    monkeypatch.setattr(loihi_oracle, "job_of", broken)
    ran = run_cli("verify", "mlp.pt", "-t", "loihi", "-i", "mlp.npz", "-n", "2")
    assert ran.code == 6
    assert "mlp.pt -> lif1" in ran.err

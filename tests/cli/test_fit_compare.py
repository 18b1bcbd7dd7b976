"""``fit`` and ``compare``."""

from __future__ import annotations

import csv

import pytest

from snn_deploy.device.load import names
from tests import tickets
from tests.cli.helpers import run_cli


@pytest.fixture
def large(here):
    """A network whose first layer is far too large for a small microcontroller or core."""
    content = tickets.mlp_content((1000, 2500, 3), density=0.9)
    return tickets.save(here / "large.pt", content)


def test_all_devices_with_limits_are_judged(here):
    ran = run_cli("fit", "mlp.pt", "--json", "-")
    assert ran.code == 0, ran.err
    assert set(ran.json["devices"]) == {n for n in names() if n != "cpu45"}
    fits = {name: device["fits"] for name, device in ran.json["devices"].items()}
    assert fits.pop("loihi2") is None
    assert set(fits.values()) == {True}
    assert ran.json["left_out"] == {}


def test_unknown_limits_are_told(here):
    ran = run_cli("fit", "mlp.pt", "-d", "loihi2")
    assert ran.code == 0
    assert "not decided" in ran.out
    assert "unknown" in ran.out


def _negative_gain(content):
    node = next(n for n in content["graph"]["nodes"] if n["name"] == "lif1")
    node["r"] = -1.0


def test_devices_that_one_reason_rules_out_stand_together(here):
    tickets.save(here / "negative.pt", tickets.mlp_content(), _negative_gain)
    ran = run_cli("fit", "negative.pt")
    assert ran.code == 0
    assert ran.out.count("a neuron gain (r or w_in) is zero or negative") == 1
    assert "ecp5-25f, ecp5-45f, ecp5-85f, ice40hx8k, ice40up5k, loihi1, loihi2" in ran.out


def test_blocks_are_named_with_their_unit(here):
    wide = tickets.save(here / "wide.pt", tickets.mlp_content((300, 300, 3), density=0.9))
    ran = run_cli("fit", wide.name, "-d", "ecp5-25f", "--margin", "99%")
    assert ran.code == 5
    assert " blocks of block RAM more than the chip of ecp5-25f holds" in ran.err


def test_a_named_device_that_does_not_fit(here, large):
    ran = run_cli("fit", "large.pt", "-d", "rp2040", "--json", "-")
    assert ran.code == 5
    assert ran.json["ok"] is False
    error = ran.json["error"]
    assert error["kind"] == "does-not-fit"
    assert "rp2040" in error["message"]
    assert "fc1" in error["message"]
    assert error["where"] == "large.pt"
    assert " of " in error["used"]
    assert "prune fc1 to at most " in error["hint"] or "use --bits" in error["hint"]
    assert ran.json["devices"]["rp2040"]["fits"] is False
    assert error["message"] in ran.err


def test_a_device_that_was_not_named_is_no_error(here, large):
    ran = run_cli("fit", "large.pt", "--csv", "fit.csv")
    assert ran.code == 0
    assert "does not fit" in ran.out
    assert "exceeds" in ran.out
    rows = list(csv.DictReader((here / "fit.csv").open()))
    assert {r["severity"] for r in rows if r["device"] == "rp2040"} >= {"exceeds"}


def test_the_hint_is_true(here, large):
    """Pruning the named layer to the named count makes it fit."""
    error = run_cli("fit", "large.pt", "-d", "nrf52840", "--json", "-").json.get("error")
    assert error is not None
    assert "prune fc1 to at most " in error["hint"]
    count = int(error["hint"].split("at most ")[1].split()[0].replace(",", ""))

    def prune(content):
        weight = content["state"]["fc1.weight"].reshape(-1)
        kept = weight.nonzero().reshape(-1)
        weight[kept[count:]] = 0
        content["masks"]["fc1.weight"] = content["state"]["fc1.weight"] != 0

    content = tickets.mlp_content((1000, 2500, 3), density=0.9)
    tickets.save(here / "pruned.pt", content, prune)
    assert run_cli("fit", "pruned.pt", "-d", "nrf52840").code == 0


def test_a_margin_keeps_room(here):
    assert run_cli("fit", "mlp.pt", "-d", "rp2040", "--margin", "10%").code == 0
    ran = run_cli("fit", "mlp.pt", "-d", "rp2040", "--margin", "99.99%")
    assert ran.code == 5
    assert "with the margin" in ran.err
    assert "99.99 % of each limit stays free" in ran.out


@pytest.mark.parametrize("margin", ["100%", "-1%", "1.5", "lots", "nan"])
def test_margins_out_of_range(here, margin):
    ran = run_cli("fit", "mlp.pt", f"--margin={margin}")
    assert ran.code == 2
    assert "margin" in ran.err


def test_a_near_device_is_suggested(here):
    ran = run_cli("fit", "mlp.pt", "-d", "loih1")
    assert ran.code == 2
    assert "did you mean 'loihi1'" in ran.err


def test_a_device_file_of_ones_own(here):
    (here / "mine.toml").write_text(
        'schema = 1\nname = "mine"\ntitle = "Half a core"\ninherits = "loihi1"\n'
        '[sources.me]\ntitle = "my bench"\nref = "note 1"\n'
        "[limits.neurons_per_core]\n"
        'value = 4\nunit = "neurons"\nsource = "me"\nkind = "specified"\n'
        "[limits.cores_per_chip]\n"
        'value = 1\nunit = "cores"\nsource = "me"\nkind = "specified"\n'
    )
    ran = run_cli("fit", "mlp.pt", "-d", "mine.toml")
    assert ran.code == 5
    assert "mine" in ran.err
    assert run_cli("export", "mlp.pt", "-t", "loihi", "-d", "mine.toml", "-o", "out").code == 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("schema = 1\n[", "mine.toml"),
        (
            'schema = 1\nname = "m"\ntitle = "M"\nfamily = "fpga"\ncolour = 1\n',
            "mine.toml -> colour",
        ),
        (
            'schema = 1\nname = "m"\ntitle = "M"\nfamily = "fpga"\n'
            '[limits.bram_bits]\nvalue = 1\nsource = "x"\nkind = "measured"\n',
            "mine.toml -> limits.bram_bits",
        ),
    ],
)
def test_a_broken_device_file(here, text, place):
    (here / "mine.toml").write_text(text)
    for arguments in (["fit", "mlp.pt"], ["export", "mlp.pt", "-t", "fpga", "-o", "out"]):
        ran = run_cli(*arguments, "-d", "mine.toml")
        assert ran.code == 8
        assert place in ran.err
    assert not (here / "out").exists()


def test_compare_tables_and_data(here):
    ran = run_cli("compare", "mlp.pt", "-i", "mlp.npz", "--html", "c.html")
    assert ran.code == 0, ran.err
    for target in ("cpu", "loihi", "fpga"):
        assert any(line.split()[:1] == [target] for line in ran.out.splitlines())
    assert "Ranking by energy" in ran.out
    assert "RankNote" not in ran.out
    page = (here / "c.html").read_text()
    assert "Synaptic operations per sample" in page
    data = run_cli("compare", "mlp.pt", "-i", "mlp.npz", "--json", "-").json
    assert [t["target"] for t in data["targets"]] == ["cpu", "loihi", "fpga"]
    assert len(data["ranking"]) == 3


def test_architecture_energy_is_never_ranked_against_a_chip(here):
    data = run_cli("compare", "mlp.pt", "-i", "mlp.npz", "--targets", "cpu,loihi", "--json", "-")
    (note,) = data.json["ranking"]
    assert note["ranked"] is False
    assert "never ranked" in note["reason"]


def test_effective_operations_agree_where_the_spikes_do(here):
    data = run_cli("compare", "mlp.pt", "-i", "mlp.npz", "--json", "-").json
    dense = {
        t["target"]: sum(e["total"] for e in t["events"] if e["event"] == "synops_dense")
        for t in data["targets"]
    }
    assert len(set(dense.values())) == 1


def test_max_energy_names_everyone_over_it(here):
    arguments = ("compare", "mlp.pt", "-i", "mlp.npz", "--json", "-", "--max-energy")
    assert run_cli(*arguments, "1e9").code == 0
    ran = run_cli(*arguments, "1")
    assert ran.code == 5
    assert ran.json["error"]["message"].startswith("cpu, loihi, fpga: more energy")
    assert len(ran.json["targets"]) == 3
    totals = [t["energy"]["total"]["nominal_pj"] for t in ran.json["targets"]]
    between = (min(totals) + sorted(totals)[1]) / 2
    ran = run_cli(*arguments, between)
    assert ran.code == 5
    assert "cpu" not in ran.json["error"]["message"].split(":")[0]


def test_a_target_that_cannot_run_it_is_left_out_with_the_reason(here):
    tickets.save(here / "negative.pt", tickets.mlp_content(), _negative_gain)
    ran = run_cli("compare", "negative.pt", "-i", "mlp.npz")
    assert ran.code == 0
    assert "Left out" in ran.out
    words = " ".join(ran.out.split())
    assert "fpga" in words.split("Left out")[1]
    ran = run_cli("compare", "negative.pt", "-i", "mlp.npz", "--targets", "fpga")
    assert ran.code == 4
    assert "a neuron gain (r or w_in) is zero or negative" in ran.err


def test_the_same_target_twice_is_one(here):
    data = run_cli("compare", "mlp.pt", "-i", "mlp.npz", "--targets", "cpu, cpu", "--json", "-")
    assert [t["target"] for t in data.json["targets"]] == ["cpu"]


def test_no_target_at_all(here):
    ran = run_cli("compare", "mlp.pt", "-i", "mlp.npz", "--targets", ",")
    assert ran.code == 2
    assert "--targets names no target" in ran.err


def test_fit_shows_the_cores_of_devices_that_have_them(here):
    ran = run_cli("fit", "mlp.pt", "-d", "loihi1", "-d", "ecp5-25f")
    assert ran.code == 0, ran.err
    assert "Cores of loihi1" in ran.out and "Cores of ecp5" not in ran.out


def test_a_margin_divides_layers_instead_of_failing(here):
    tickets.save(here / "wide.pt", tickets.mlp_content((12, 1024, 3)))
    ran = run_cli("fit", "wide.pt", "-d", "loihi1", "--margin", "10%")
    assert ran.code == 0, ran.err + ran.out
    assert "2 on 1 chip" in ran.out

"""The top level of a program: its engines, the edges between them, and their parameters."""

from __future__ import annotations

from collections.abc import Sequence

from snn_deploy.backends.fpga.images import (
    TABLED,
    by_slot,
    map_starts,
    map_words,
    packed_parameter,
    table_depth,
    tabled,
)
from snn_deploy.backends.fpga.program import Edge, Engine, FpgaProgram, ReadoutUnit
from snn_deploy.backends.fpga.readout import STEP_BITS


def bits_for(count: int) -> int:
    """Return the bits that number ``count`` things, at least one."""
    return max(1, (count - 1).bit_length())


def prefix(engine: Engine) -> str:
    """Return how the names of an engine's memory images begin."""
    return f"engine{engine.index:02d}."


def word_bits(program: FpgaProgram, engine: Engine) -> int:
    """Return the bits of a source word's number at an engine."""
    return max(bits_for(e.words) for e in program.edges_to(engine.index))


def lane_bits(program: FpgaProgram, engine: Engine) -> int:
    """Return the bits of a source lane's number at an engine."""
    return max(bits_for(e.lanes) for e in program.edges_to(engine.index))


def u_bits(engine: Engine, program: FpgaProgram) -> int:
    """Return the bits of u: those that are kept, or of a shifted sum."""
    if any(layer.current for layer in engine.layers):
        return program.arithmetic.state_bits
    return max(engine.widths.current, 2)


def value_bits(program: FpgaProgram) -> int:
    """Return the bits of an input event's value, 0 for spikes."""
    return max(e.widths.value for e in program.engines)


def accelerator(program: FpgaProgram) -> str:
    """Return the SystemVerilog of the top level, ``accelerator``."""
    parts = [_header(program), _input(program)]
    parts += [_engine(program, engine) for engine in program.engines]
    parts += [_edges(program, engine) for engine in program.engines]
    if program.readout is not None:
        parts.append(_readout(program, program.readout))
    parts.append("endmodule\n")
    return "\n".join(parts)


def _header(program: FpgaProgram) -> str:
    name, size = program.input
    width = max(1, value_bits(program)) + bits_for(size)
    ports = []
    for e in program.engines:
        n, p = f"e{e.index}", program.banks
        layers = bits_for(len(e.layers))
        ports += [
            f"    output logic {n}_began, {n}_ended, {n}_swept_from, {n}_put, {n}_commit,",
            f"    output logic [{layers - 1}:0] {n}_job_layer, {n}_put_layer,",
            f"    output logic [{STEP_BITS - 1}:0] {n}_job_step, {n}_put_step,",
            f"    output logic [{e.widths.address - 1}:0] {n}_put_word,",
            f"    output logic [{p - 1}:0] {n}_put_mask,",
            f"    output logic [{p * v_bits(program) - 1}:0] {n}_put_v,",
            f"    output logic [{p * u_bits(e, program) - 1}:0] {n}_put_u,",
            f"    output logic [31:0] {n}_rows, {n}_pushes, {n}_reads, {n}_adds, {n}_stalls,",
        ]
    classes = 1
    if program.readout is not None:
        classes = program.readout.neurons // program.readout.group
    ports += [
        "    output logic scanned, stops,",
        f"    output logic [{STEP_BITS - 1}:0] at_step,",
    ]
    watched = "\n".join(ports)
    inner = "\n".join(_as_signal(line) for line in ports)
    return f"""\
// Generated: {len(program.engines)} engines of {program.banks} banks; input {name}, {size} wide.
module accelerator (
`ifdef MONITOR
{watched}
`endif
    input  logic clk,
    input  logic reset,
    input  logic start,
    input  logic [{STEP_BITS - 1}:0] steps,
    input  logic early,  // whether a sample may stop before its last step
    output logic done,
    output logic [{bits_for(classes) - 1}:0] result,
    input  logic s_tvalid,
    output logic s_tready,
    input  logic [{width - 1}:0] s_tdata,
    input  logic s_tuser,
    input  logic s_tlast
);
`ifndef MONITOR
{inner}
`endif
    logic run, finished, stop, hold;
    wire clear = reset | start;
    wire last = at_step + 1'b1 == steps;
    logic [{len(program.engines) - 1}:0] over;
    assign done = run & (&over) & {"finished" if program.readout else "1'b1"};
    always_ff @(posedge clk) begin
        if (reset) run <= 1'b0;
        else if (start) run <= 1'b1;
        // After an early stop jobs that have begun are ended, and no new ones begin. After the last
        // step all do: what reaches the output late, or never, is computed too.
        if (clear) {{finished, stop}} <= '0;
        else if (scanned & stops & (early | last)) {{finished, stop}} <= {{1'b1, ~last}};
    end
{"" if program.readout else NO_READOUT}
"""


NO_READOUT = """\
    assign {scanned, stops, hold} = '0;
    assign at_step = '0;
    assign result = '0;
"""


def _readout(program: FpgaProgram, unit: ReadoutUnit) -> str:
    engine, layer = program.layer(unit.population)
    n, layout = f"e{engine.index}", layer.layout
    here = f"({n}_put_layer == {engine.layers.index(layer)})"
    stops = unit.thresholds
    kind = ("count", "mean", "max", "last").index(unit.kind)
    return f"""\
    readout #(
        .P({program.banks}), .WORDS({layout.words}), .SLOTS({layout.per_bank}),
        .NEURONS({unit.neurons}), .PIXELS({layout.pixels}), .GROUP({unit.group}), .KIND({kind}),
        .FIRST({unit.first}), .LAST({unit.last}), .STOPS({int(stops is not None)}),
        .STEPS({len(stops or (0,))}), .VB({v_bits(program)}), .SB({unit.bits}),
        .AB({engine.widths.address}), .TW({STEP_BITS}), .CB({bits_for(unit.neurons // unit.group)}),
        .THRESHOLDS("readout.thresholds.hex")
    ) i_readout (
        .clk, .clear, .steps, .put({n}_put & {here}), .step({n}_put_step), .word({n}_put_word),
        // A job that was under way at the stop must not be scanned: the result is there.
        .mask({n}_put_mask), .v({n}_put_v), .commit({n}_commit & {here} & ~stop), .hold,
        .scanned, .stops, .at_step, .best(result)
    );
"""


def _as_signal(port: str) -> str:
    return port.replace("output ", "").rstrip(",") + ";"


def v_bits(program: FpgaProgram) -> int:
    """Return the bits of a membrane."""
    return program.arithmetic.state_max.bit_length() + 1


def _name(edge: Edge, program: FpgaProgram) -> str:
    at = program.edges_to(edge.engine).index(edge)
    return f"edge{edge.engine}_{at}"


def _room(program: FpgaProgram, pre: str) -> str:
    rooms = [f"{_name(e, program)}_room" for e in program.edges if e.pre == pre]
    if program.readout is not None and program.readout.population == pre:
        rooms.append("~hold")
    return " & ".join(rooms) if rooms else "1'b1"


def _input(program: FpgaProgram) -> str:
    name, size = program.input
    value = max(1, value_bits(program))
    return f"""\
    logic in_put, in_commit;
    logic [{bits_for(size) - 1}:0] in_word;
    logic [{value - 1}:0] in_value;
    spike_input #(.IB({bits_for(size)}), .VB({value}), .TW({STEP_BITS})) i_input (
        .clk, .clear, .run, .steps, .s_tvalid, .s_tready, .s_tdata, .s_tuser, .s_tlast,
        .room(~stop & {_room(program, name)}),
        .put(in_put), .put_word(in_word), .put_value(in_value), .commit(in_commit)
    );
"""


def parameters(program: FpgaProgram, engine: Engine) -> dict[str, str]:
    """Return the parameters of an engine's instance, as SystemVerilog."""
    w, layers, segments = engine.widths, engine.layers, engine.segments
    edges = program.edges_to(engine.index)
    edge_of = {edge.pre: i for i, edge in enumerate(edges)}
    fields = tabled(engine)
    owner = [i for i, layer in enumerate(layers) for _ in layer.segments]
    depths = [table_depth(layer, fields) for layer in layers]
    maps = map_words(program, engine)
    numbers = {
        "P": program.banks,
        "FIFO": program.fifo_depth,
        "FORMAT": ("csr", "bitmap", "dense").index(engine.format),
        "DEPTH": engine.depth,
        "ROWS": engine.rows,
        "MAPS": len(maps),
        "TAPS": engine.taps,
        "WB": w.weight,
        "IB": max(1, w.index),
        "TB": max(1, w.tap),
        "SB": w.start,
        "NB": w.length,
        "AB": w.address,
        "WORDS": max(layer.layout.words for layer in layers),
        "STATES": engine.states,
        "VALUE": w.value,
        "ACC": w.sum,
        "UB": u_bits(engine, program),
        "VB": v_bits(program),
        "DECAY": program.arithmetic.decay_bits,
        "HB": program.arithmetic.threshold_bits,
        "BB": program.arithmetic.bias_bits,
        "CURRENT": int(any(layer.current for layer in layers)),
        "LEAK": int(any(layer.leak for layer in layers)),
        "TW": STEP_BITS,
        "WW": word_bits(program, engine),
        "LW": lane_bits(program, engine),
        "LAYERS": len(layers),
        "SEGMENTS": len(segments),
        "EDGES": len(edges),
        "SKEW": max(layer.skew for layer in layers),
        "TABLE": max(1, sum(depths)) if fields else 1,
        **{f"{name.upper()}_TABLED": int(name in fields) for name in TABLED},
    }
    firsts = [sum(len(x.segments) for x in layers[:i]) for i in range(len(layers))]
    lists: dict[str, Sequence[int]] = {
        "SEG_EDGE": [edge_of[s.pre] for s in segments],
        "SEG_DELAY": [s.delay for s in segments],
        "SEG_ROW": [s.first_row for s in segments],
        "SEG_LANES": [(s.lanes - 1).bit_length() for s in segments],
        "SEG_MAPPED": [int(s.map is not None) for s in segments],
        "SEG_MAP": map_starts(program, engine),
        "SEG_WORDS": [layers[i].layout.words for i in owner],
        "SEG_LAYER": owner,
        "LAYER_FIRST": firsts,
        "LAYER_SEGMENTS": [len(x.segments) for x in layers],
        "LAYER_WORDS": [x.layout.words for x in layers],
        "LAYER_SLOTS": [x.layout.per_bank for x in layers],
        "LAYER_STATE": [x.state for x in layers],
        "LAYER_SKEW": [x.skew for x in layers],
        "LAYER_SHIFT": [x.shift for x in layers],
        "LAYER_SUBTRACT": [int(x.reset == "subtract") for x in layers],
        "LAYER_TABLE": [sum(depths[:i]) for i in range(len(layers))],
        "LAYER_BY_SLOT": [int(by_slot(x, fields)) for x in layers],
        **{n.upper(): [int(x.table(n).words.flat[0]) for x in layers] for n in TABLED},
        "EDGE_LAST": [e.last for e in edges],
    }
    found = {name: str(value) for name, value in numbers.items()}
    found |= {name: packed_parameter(values) for name, values in lists.items()}
    lanes = [x.last_lanes() for x in layers]
    found["LAYER_LAST"] = packed_parameter(lanes, program.banks)
    found["PREFIX"] = f'"{prefix(engine)}"'
    return found


def _engine(program: FpgaProgram, engine: Engine) -> str:
    n = engine.index
    edges = program.edges_to(n)
    count = len(edges)
    value = max(1, engine.widths.value)
    lines = [f"        .{name}({text})" for name, text in parameters(program, engine).items()]
    rooms = ", ".join(_room(program, x.population) for x in reversed(engine.layers))
    return f"""\
    // {engine.name}: {engine.choice}
    logic e{n}_enable;
    logic [{count - 1}:0] e{n}_start, e{n}_take, e{n}_valid, e{n}_idle;
    logic [{count - 1}:0] e{n}_release, e{n}_commits;
    logic [{STEP_BITS - 1}:0] e{n}_step;
    logic [{count * word_bits(program, engine) - 1}:0] e{n}_word;
    logic [{count * lane_bits(program, engine) - 1}:0] e{n}_lane;
    logic [{count * value - 1}:0] e{n}_value;
    engine #(
{("," + chr(10)).join(lines)}
    ) i_engine{n} (
        .clk, .clear, .run, .stop, .steps, .over(over[{n}]),
        .e_enable(e{n}_enable), .e_start(e{n}_start), .e_step(e{n}_step), .e_take(e{n}_take),
        .e_release(e{n}_release), .e_commit(e{n}_commits), .e_valid(e{n}_valid), .e_idle(e{n}_idle),
        .e_word(e{n}_word), .e_lane(e{n}_lane), .e_value(e{n}_value),
        .room({{{rooms}}}),
        .put(e{n}_put), .put_layer(e{n}_put_layer), .put_step(e{n}_put_step),
        .put_word(e{n}_put_word), .put_mask(e{n}_put_mask), .put_v(e{n}_put_v),
        .put_u(e{n}_put_u), .commit(e{n}_commit),
        .began(e{n}_began), .ended(e{n}_ended), .swept_from(e{n}_swept_from),
        .job_layer(e{n}_job_layer), .job_step(e{n}_job_step),
        .count_rows(e{n}_rows), .count_pushes(e{n}_pushes), .count_reads(e{n}_reads),
        .count_adds(e{n}_adds), .count_stalls(e{n}_stalls)
    );
"""


def _edges(program: FpgaProgram, engine: Engine) -> str:
    parts = []
    n = engine.index
    value = engine.widths.value
    word, lane = word_bits(program, engine), lane_bits(program, engine)
    for at, edge in enumerate(program.edges_to(n)):
        name = _name(edge, program)
        if edge.pre == program.input[0]:
            put, commit = "in_put", "in_commit"
            words, mask, values = "in_word", "1'b1", f"{max(1, value)}'(in_value)"
        else:
            writer, layer = program.layer(edge.pre)
            w, number = f"e{writer.index}", writer.layers.index(layer)
            here = f"({w}_put_layer == {number})"
            put = f"{w}_put & {here} & ({w}_put_mask != 0)"
            commit = f"{w}_commit & {here}"
            words, mask, values = f"{w}_put_word", f"{w}_put_mask", "'0"
        graded = value if edge.pre == program.input[0] else 0
        own = f"e{n}_value[{at * max(1, value)}+:{max(1, value)}]"
        given, fixed = f".value({own})", ""
        if not graded:  # spikes count once
            given, fixed = ".value()", f"    assign {own} = 1;\n"
        parts.append(f"""\
    logic {name}_room;
    assign e{n}_commits[{at}] = {commit};
{fixed}    spike_buffer #(
        .LANES({edge.lanes}), .WORDS({edge.words}), .STEPS({edge.steps}), .DELAY({edge.delay}),
        .VALUE({graded}), .WW({word}), .LW({lane}), .TW({STEP_BITS})
    ) i_{name} (
        .clk, .clear,
        .put({put}), .put_word({word}'({words})), .put_mask({mask}), .put_value({values}),
        .commit(e{n}_commits[{at}]), .room({name}_room),
        .enable(e{n}_enable), .freed(e{n}_release[{at}]),
        .start(e{n}_start[{at}]), .step(e{n}_step), .take(e{n}_take[{at}]),
        .valid(e{n}_valid[{at}]), .idle(e{n}_idle[{at}]),
        .word(e{n}_word[{at * word}+:{word}]), .lane(e{n}_lane[{at * lane}+:{lane}]), {given}
    );
""")
    return "\n".join(parts)

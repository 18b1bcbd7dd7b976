// One engine: runs its layers' steps, one after the other, on P banks.
//
// Two units overlap. The ingest unit takes the events of a layer's sources for one step, turns each
// into a row of weights, and lets the banks add it. Then the sweep unit updates the layer's neurons,
// a word of all banks per cycle, hands on their spikes and clears their accumulators, while ingest
// works on the next step with the other half of the accumulators.
module engine #(
    parameter int P = 8,
    parameter int FIFO = 4,
    parameter int FORMAT = 0,
    parameter int DEPTH = 64,   // words of a bank's weight memory
    parameter int ROWS = 64,    // rows of the pointer memory
    parameter int MAPS = 0,     // words of the map from source words to rows, 0 without
    parameter int TAPS = 0,
    parameter int WB = 8,
    parameter int IB = 4,
    parameter int TB = 1,
    parameter int SB = 6,
    parameter int NB = 4,
    parameter int AB = 4,       // bits of a neuron's address in a bank
    parameter int WORDS = 16,   // words of its largest layer
    parameter int STATES = 16,  // words of all its layers
    parameter int VALUE = 0,
    parameter int ACC = 16,
    parameter int UB = 24,
    parameter int VB = 16,
    parameter int DECAY = 12,
    parameter int HB = 15,      // bits of a threshold
    parameter int BB = 16,
    parameter bit CURRENT = 0,
    parameter bit LEAK = 1,
    parameter int TW = 12,
    parameter int WW = 4,       // bits of a source word's number
    parameter int LW = 3,       // bits of a source lane's number
    parameter int LAYERS = 1,
    parameter int SEGMENTS = 1,
    parameter int EDGES = 1,
    // Per segment: the edge it reads, its delay, first row, bits of a source lane, whether its
    // rows come from the map, and where there.
    parameter logic [32*SEGMENTS-1:0] SEG_EDGE = '0,
    parameter logic [32*SEGMENTS-1:0] SEG_DELAY = '0,
    parameter logic [32*SEGMENTS-1:0] SEG_ROW = '0,
    parameter logic [32*SEGMENTS-1:0] SEG_LANES = '0,
    parameter logic [32*SEGMENTS-1:0] SEG_MAPPED = '0,
    parameter logic [32*SEGMENTS-1:0] SEG_MAP = '0,
    parameter logic [32*SEGMENTS-1:0] SEG_WORDS = '0,  // words of its layer: a dense row's length
    parameter logic [32*SEGMENTS-1:0] SEG_LAYER = '0,
    // Per layer: first segment, segments, words, first state, neurons of a slot's last word.
    parameter logic [32*LAYERS-1:0] LAYER_FIRST = '0,
    parameter logic [32*LAYERS-1:0] LAYER_SEGMENTS = '0,
    parameter logic [32*LAYERS-1:0] LAYER_WORDS = '0,
    parameter logic [32*LAYERS-1:0] LAYER_SLOTS = '0,
    parameter logic [32*LAYERS-1:0] LAYER_STATE = '0,
    parameter logic [32*LAYERS-1:0] LAYER_SKEW = '0,
    parameter int SKEW = 0,  // the largest of these
    parameter logic [32*LAYERS-1:0] LAYER_SHIFT = '0,
    parameter logic [32*LAYERS-1:0] LAYER_SUBTRACT = '0,
    parameter logic [32*LAYERS-1:0] LAYER_TABLE = '0,    // first word in the table
    parameter logic [32*LAYERS-1:0] LAYER_BY_SLOT = '0,  // a word per slot, not per address
    parameter logic [P*LAYERS-1:0]  LAYER_LAST = '1,     // neurons in a pixel's last slot
    // Parameters that are the same for all of a layer's neurons.
    parameter logic [32*LAYERS-1:0] THRESHOLD = '0,
    parameter logic [32*LAYERS-1:0] BIAS = '0,
    parameter logic [32*LAYERS-1:0] KEEP_U = '0,
    parameter logic [32*LAYERS-1:0] KEEP_V = '0,
    parameter logic [32*LAYERS-1:0] RESET = '0,
    parameter logic [32*LAYERS-1:0] START = '0,
    // Those that come from the table, and its depth.
    parameter bit THRESHOLD_TABLED = 0,
    parameter bit BIAS_TABLED = 0,
    parameter bit KEEP_U_TABLED = 0,
    parameter bit KEEP_V_TABLED = 0,
    parameter bit RESET_TABLED = 0,
    parameter bit START_TABLED = 0,
    parameter int TABLE = 1,
    // Per edge: the layer whose ingest ends a step's use.
    parameter logic [32*EDGES-1:0] EDGE_LAST = '0,
    // Memory images, PREFIX + "weights.b00.hex" and so on.
    parameter     PREFIX = "",
    localparam int LB = (LAYERS > 1) ? $clog2(LAYERS) : 1,
    localparam int GB = (SEGMENTS > 1) ? $clog2(SEGMENTS) : 1,
    localparam int XB = (VALUE > 0) ? VALUE : 1,
    localparam int MB = (TAPS > 0) ? TAPS : 1,
    localparam int CB = 32
) (
    input  logic                clk,
    input  logic                clear,
    input  logic                run,
    input  logic                stop,
    input  logic [TW-1:0]       steps,
    output logic                over,      // all is done
    // edges, reader's side
    output logic                e_enable,
    output logic [EDGES-1:0]    e_start,
    output logic [TW-1:0]       e_step,
    output logic [EDGES-1:0]    e_take,
    output logic [EDGES-1:0]    e_release,  // a step of the edge is not needed any more
    input  logic [EDGES-1:0]    e_commit,   // a step of the edge was written
    input  logic [EDGES-1:0]    e_valid,
    input  logic [EDGES-1:0]    e_idle,
    input  logic [EDGES*WW-1:0] e_word,
    input  logic [EDGES*LW-1:0] e_lane,
    input  logic [EDGES*XB-1:0] e_value,
    // spikes, writer's side
    input  logic [LAYERS-1:0]   room,
    output logic                put,       // a word was swept
    output logic [LB-1:0]       put_layer,
    output logic [TW-1:0]       put_step,
    output logic [AB-1:0]       put_word,
    output logic [P-1:0]        put_mask,
    output logic [P*VB-1:0]     put_v,
    output logic [P*UB-1:0]     put_u,
    output logic                commit,    // with the layer's last word
    // counters, and when a job's ingest begins and ends
    output logic                began,
    output logic                ended,
    output logic                swept_from,
    output logic [LB-1:0]       job_layer,
    output logic [TW-1:0]       job_step,
    output logic [CB-1:0]       count_rows,
    output logic [CB-1:0]       count_pushes,
    output logic [CB-1:0]       count_reads,
    output logic [CB-1:0]       count_adds,
    output logic [CB-1:0]       count_stalls
);
    localparam int RB = (ROWS > 1) ? $clog2(ROWS) : 1;
    localparam int MA = (MAPS > 1) ? $clog2(MAPS) : 1;
    localparam int VA = (STATES > 1) ? $clog2(STATES) : 1;
    localparam int PTR = SB + NB;
    localparam int LEAD = 9;  // holds the steps that an edge can hold, and its delay
    localparam int EB = (FORMAT == 0) ? ((TAPS > 0 ? TB : 0) + IB + WB) : WB;

    // ---------------------------------------------------------------------- ingest: jobs
    typedef enum logic [1:0] {JOB, SEGMENT, STREAM, FLUSH} ingest_t;
    ingest_t state;
    logic [1:0] held;  // accumulators that wait for the sweep
    logic half;        // that ingest fills
    logic [GB-1:0] segment_now;
    wire [GB-1:0] segment = (SEGMENTS == 1) ? '0 : segment_now;
    logic [LB-1:0] layer;
    logic [TW-1:0] step;
    logic present, jobs_over, handoff;
    jobs #(.LAYERS(LAYERS), .TW(TW), .JW(LB), .SKEW(LAYER_SKEW), .MOST(SKEW)) order (
        .clk, .clear, .steps, .advance(handoff | ((state == JOB) & run & ~present & ~jobs_over)),
        .layer, .step, .present, .over(jobs_over)
    );

    // Of each segment, the steps that can be taken in and were not.
    logic [SEGMENTS-1:0] due;
    generate
        for (genvar g = 0; g < SEGMENTS; g++) begin : g_due
            logic [LEAD-1:0] lead;
            wire more = e_commit[SEG_EDGE[32*g+:32]];
            wire less = handoff & (layer == LB'(SEG_LAYER[32*g+:32]));
            always_ff @(posedge clk) begin
                if (clear) lead <= LEAD'(SEG_DELAY[32*g+:32]);
                else lead <= lead + LEAD'(more) - LEAD'(less);
            end
            assign due[g] = (lead != 0) | (layer != LB'(SEG_LAYER[32*g+:32]));
        end
    endgenerate
    wire ready = ~held[half] & (&due);
    wire [31:0] first_segment = LAYER_FIRST[32*layer+:32];
    wire [31:0] end_segment = first_segment + LAYER_SEGMENTS[32*layer+:32];
    wire last_segment = 32'(segment) + 1 == end_segment;
    wire [TW-1:0] delay = TW'(SEG_DELAY[32*segment+:32]);
    wire [31:0] edge_now = SEG_EDGE[32*segment+:32];
    wire [TW:0] sent = {1'b0, step} - {1'b0, delay};
    wire early = sent[TW];  // nothing was sent so long ago
    wire go = (state == JOB) & run & ~stop & present & ready;

    // ---------------------------------------------------------------------- ingest: events to rows
    logic advance;  // of the whole pipeline, this unit's states included
    logic quiet;
    assign e_enable = advance;
    assign e_step = sent[TW-1:0];
    always_comb begin
        e_start = '0;
        e_take = '0;
        e_start[edge_now] = (state == SEGMENT) & ~early;
        e_take[edge_now] = (state == STREAM) & e_valid[edge_now];
    end
    assign handoff = (state == FLUSH) & quiet;
    always_ff @(posedge clk) begin
        if (clear) begin
            state <= JOB;
            half <= 0;
        end else if (advance) begin
            case (state)
                JOB: if (go) begin
                    state <= SEGMENT;
                    segment_now <= GB'(first_segment);
                end
                SEGMENT:
                    if (~early) state <= STREAM;
                    else if (last_segment) state <= FLUSH;
                    else segment_now <= segment + 1'b1;
                STREAM: if (e_idle[edge_now]) begin
                    if (last_segment) state <= FLUSH;
                    else begin
                        segment_now <= segment + 1'b1;
                        state <= SEGMENT;
                    end
                end
                FLUSH: if (quiet) begin
                    state <= JOB;
                    half <= ~half;
                end
            endcase
        end
    end

    // Map read: where a kernel lies on the image, or the row alone.
    localparam int MW = 1 + RB + AB + MB;
    logic v1, v2, v3, v4, mapped1;
    logic [LW-1:0] lane1;
    logic [RB-1:0] row1;
    logic signed [XB-1:0] value1, value2, value3, value4;
    logic [MW-1:0] map1;
    wire [WW-1:0] word0 = e_word[WW*edge_now+:WW];
    wire [LW-1:0] lane0 = e_lane[LW*edge_now+:LW];
    generate
        if (MAPS > 0) begin : g_map
            logic [MW-1:0] map[0:MAPS-1];
            initial $readmemh({PREFIX, "map.hex"}, map);
            always_ff @(posedge clk)
                if (advance) map1 <= map[MA'(SEG_MAP[32*segment+:32] + 32'(word0))];
        end else begin : g_no_map
            assign map1 = 0;
        end
    endgenerate
    always_ff @(posedge clk) begin
        if (clear) v1 <= 0;
        else if (advance) v1 <= |e_take;
        if (advance) begin
            mapped1 <= SEG_MAPPED[32*segment];
            lane1 <= lane0;
            row1 <= RB'(SEG_ROW[32*segment+:32]
                + ((32'(word0) << SEG_LANES[32*segment+:32]) | 32'(lane0)));
            value1 <= $signed(e_value[XB*edge_now+:XB]);
        end
    end

    // Row.
    logic none2, none3, none4;
    logic [RB-1:0] row2;
    logic [AB-1:0] base2, base3, base4;
    logic [MB-1:0] reach2, reach3, reach4;
    logic [31:0] words1;
    always_ff @(posedge clk) if (advance) words1 <= SEG_WORDS[32*segment+:32];
    always_ff @(posedge clk) begin
        if (clear) v2 <= 0;
        else if (advance) v2 <= v1;
        if (advance) begin
            none2 <= 1'b0;
            row2 <= row1;
            base2 <= AB'(words1 - 1);
            reach2 <= '1;
            value2 <= value1;
            if ((MAPS > 0) & mapped1) begin
                none2 <= map1[MW-1];
                row2 <= map1[MB+AB+:RB] + RB'(lane1);
                base2 <= map1[MB+:AB];
                reach2 <= map1[0+:MB];
            end
        end
    end

    // Pointers.
    logic [P*PTR-1:0] pointer;
    generate
        if (FORMAT == 2) begin : g_dense
            logic [31:0] words2;
            logic [SB-1:0] begins;
            logic [NB-1:0] lasts;
            always_ff @(posedge clk) if (advance) begin
                words2 <= words1;
                begins <= SB'(32'(row2) * words2);
                lasts <= NB'(words2);
            end
            assign pointer = {P{begins, lasts}};
        end else begin : g_pointers
            logic [P*PTR-1:0] pointers[0:ROWS-1];
            initial $readmemh({PREFIX, "pointers.hex"}, pointers);
            always_ff @(posedge clk) if (advance) pointer <= pointers[row2];
        end
    endgenerate
    always_ff @(posedge clk) begin
        if (clear) begin
            v3 <= 0;
            v4 <= 0;
        end else if (advance) begin
            v3 <= v2;
            v4 <= v3;
        end
        if (advance) begin
            {none3, base3, reach3, value3} <= {none2, base2, reach2, value2};
            {none4, base4, reach4, value4} <= {none3, base3, reach3, value3};
        end
    end

    // Push: waits until every bank has room.
    logic [P-1:0] full, busy, adds, reads, pushes;
    logic [P*PTR-1:0] pointer4;
    always_ff @(posedge clk) if (advance) pointer4 <= pointer;
    assign advance = ~(v4 & ~none4 & (|full));
    always_comb
        for (int b = 0; b < P; b++)
            pushes[b] = v4 & ~none4 & ~(|full) & (pointer4[PTR*b+:NB] != 0);
    assign quiet = ~(v1 | v2 | v3 | v4) & ~(|busy);

    // ---------------------------------------------------------------------- sweep: control
    typedef enum logic {WAIT, SWEEP} sweep_t;
    sweep_t sweep;
    logic sweep_half;
    logic [LB-1:0] s_layer;
    logic [TW-1:0] s_step;
    logic s_present, s_over, finish;
    jobs #(.LAYERS(LAYERS), .TW(TW), .JW(LB), .SKEW(LAYER_SKEW), .MOST(SKEW)) sweep_order (
        .clk, .clear, .steps, .advance(finish | ((sweep == WAIT) & run & ~s_present & ~s_over)),
        .layer(s_layer), .step(s_step), .present(s_present), .over(s_over)
    );
    logic [AB:0] swept;
    logic [AB-1:0] slot;
    wire [31:0] words = LAYER_WORDS[32*s_layer+:32];
    wire [31:0] slots = LAYER_SLOTS[32*s_layer+:32];
    wire issue = (sweep == SWEEP) & (32'(swept) < words);
    wire go_sweep = (sweep == WAIT) & s_present & held[sweep_half] & (room[s_layer] | stop);
    // A word's way: states read, held, multiplied, u, v, spike and write.
    logic s1, s2, s3, s4, s5;
    logic [AB-1:0] word1s, word2s, word3s, word4s, word5s;
    logic last1, last2, last3, last4, last5, top1, top2, top3, top4, top5;
    assign finish = s5 & last5;
    always_ff @(posedge clk) begin
        if (clear) begin
            sweep <= WAIT;
            sweep_half <= 0;
            {s1, s2, s3, s4, s5} <= '0;
        end else begin
            {s5, s4, s3, s2, s1} <= {s4, s3, s2, s1, issue};
            if (go_sweep) sweep <= SWEEP;
            else if (finish) begin
                sweep <= WAIT;
                sweep_half <= ~sweep_half;
            end
        end
        if (go_sweep) begin
            swept <= 0;
            slot <= 0;
        end else if (issue) begin
            swept <= swept + 1'b1;
            slot <= (32'(slot) + 1 == slots) ? '0 : slot + 1'b1;
        end
        {word5s, word4s, word3s} <= {word4s, word3s, word2s};
        {word2s, word1s} <= {word1s, swept[AB-1:0]};
        {last5, last4, last3, last2, last1} <= {last4, last3, last2, last1, 32'(swept) + 1 == words};
        {top5, top4, top3, top2, top1} <= {top4, top3, top2, top1, 32'(slot) + 1 == slots};
    end
    always_ff @(posedge clk) begin
        if (clear) held <= 0;
        else begin
            if (handoff) held[half] <= 1'b1;
            if (finish) held[sweep_half] <= 1'b0;
        end
    end

    // ---------------------------------------------------------------------- sweep: parameters
    localparam int T_H = THRESHOLD_TABLED ? HB : 0;
    localparam int T_B = BIAS_TABLED ? BB : 0;
    localparam int T_U = KEEP_U_TABLED ? DECAY + 1 : 0;
    localparam int T_V = KEEP_V_TABLED ? DECAY + 1 : 0;
    localparam int T_R = RESET_TABLED ? VB : 0;
    localparam int T_S = START_TABLED ? VB : 0;
    localparam int TL = T_H + T_B + T_U + T_V + T_R + T_S;  // bits of a lane
    localparam int TM = (TL > 0) ? TL : 1;
    localparam int TA = (TABLE > 1) ? $clog2(TABLE) : 1;
    logic [P*TM-1:0] table1;
    generate
        if (TL > 0) begin : g_table
            logic [P*TM-1:0] params[0:TABLE-1];
            initial $readmemh({PREFIX, "params.hex"}, params);
            wire [31:0] offset = LAYER_BY_SLOT[32*s_layer] ? 32'(slot) : 32'(swept);
            always_ff @(posedge clk) table1 <= params[TA'(LAYER_TABLE[32*s_layer+:32] + offset)];
        end else begin : g_no_table
            assign table1 = 0;
        end
    endgenerate

    // ---------------------------------------------------------------------- banks and neurons
    wire [VA-1:0] s_address = VA'(LAYER_STATE[32*s_layer+:32] + 32'(swept));
    wire [VA-1:0] w_address = VA'(LAYER_STATE[32*s_layer+:32] + 32'(word5s));
    // A sweep's step is there two cycles before its first states.
    logic first;
    always_ff @(posedge clk) first <= s_step == 0;
    logic [P-1:0] spikes;
    wire [P-1:0] present_lanes = top5 ? LAYER_LAST[P*s_layer+:P] : '1;
    generate
        for (genvar b = 0; b < P; b++) begin : g_bank
            logic [EB-1:0] weights[0:DEPTH-1];
            initial $readmemh({PREFIX, "weights.b", 8'(48 + b / 10), 8'(48 + b % 10), ".hex"}, weights);
            logic [SB-1:0] read_address;
            logic [EB-1:0] entry;
            always_ff @(posedge clk) if (reads[b]) entry <= weights[read_address];

            logic signed [ACC-1:0] sum;
            bank #(
                .FORMAT(FORMAT), .WORDS(WORDS), .FIFO(FIFO), .WB(WB), .IB(IB),
                .TAPS(TAPS), .TB(TB), .SB(SB), .NB(NB), .AB(AB), .VALUE(VALUE), .ACC(ACC)
            ) i_bank (
                .clk, .clear,
                .push(pushes[b]), .start(pointer4[PTR*b+NB+:SB]), .row(pointer4[PTR*b+:NB]),
                .base(base4), .reach(reach4), .value(value4),
                .full(full[b]), .busy(busy[b]), .reads(reads[b]), .read_address, .entry, .adds(adds[b]),
                .half, .sweeping(issue), .sweep_half, .sweep_address(swept[AB-1:0]), .sum
            );

            logic signed [VB-1:0] v_memory[0:STATES-1];
            logic signed [VB-1:0] v, new_v;
            logic signed [UB-1:0] u, new_u;
            always_ff @(posedge clk) begin
                v <= v_memory[s_address];
                if (s5) v_memory[w_address] <= new_v;
            end
            if (CURRENT) begin : g_u
                logic signed [UB-1:0] u_memory[0:STATES-1];
                always_ff @(posedge clk) begin
                    u <= u_memory[s_address];
                    if (s5) u_memory[w_address] <= new_u;
                end
            end else begin : g_no_u
                assign u = 0;
            end
            wire [TM-1:0] lane = table1[TM*b+:TM];
            wire [HB-1:0] threshold = THRESHOLD_TABLED ? HB'(lane) : HB'(THRESHOLD[32*s_layer+:32]);
            wire signed [BB-1:0] bias = BIAS_TABLED ? BB'(lane >> T_H) : BB'(BIAS[32*s_layer+:32]);
            wire [DECAY:0] keep_u = KEEP_U_TABLED ? (DECAY + 1)'(lane >> (T_H + T_B))
                : (DECAY + 1)'(KEEP_U[32*s_layer+:32]);
            wire [DECAY:0] keep_v = KEEP_V_TABLED ? (DECAY + 1)'(lane >> (T_H + T_B + T_U))
                : (DECAY + 1)'(KEEP_V[32*s_layer+:32]);
            wire signed [VB-1:0] reset = RESET_TABLED ? VB'(lane >> (T_H + T_B + T_U + T_V))
                : VB'(RESET[32*s_layer+:32]);
            wire signed [VB-1:0] start = START_TABLED ? VB'(lane >> (T_H + T_B + T_U + T_V + T_R))
                : VB'(START[32*s_layer+:32]);
            neuron #(
                .ACC(ACC), .UB(UB), .VB(VB), .DECAY(DECAY), .TB(HB), .BB(BB),
                .CURRENT(CURRENT), .LEAK(LEAK)
            ) i_neuron (
                .clk, .first, .sum, .u, .v, .shift(LAYER_SHIFT[32*s_layer+:3]),
                .keep_u, .keep_v, .bias, .threshold, .reset,
                .subtract(LAYER_SUBTRACT[32*s_layer]), .start,
                .new_u, .new_v, .spike(spikes[b])
            );
            assign put_v[VB*b+:VB] = new_v;
            assign put_u[UB*b+:UB] = new_u;
        end
    endgenerate

    assign put = s5;
    assign put_layer = s_layer;
    assign put_step = s_step;
    assign put_word = word5s;
    assign put_mask = spikes & present_lanes;
    assign commit = finish;
    assign over = ((state == JOB) & (jobs_over | stop)) & (sweep == WAIT) & (held == 0);

    // ---------------------------------------------------------------------- what readers have done
    always_comb
        for (int e = 0; e < EDGES; e++)
            e_release[e] = handoff & (layer == LB'(EDGE_LAST[32*e+:32]));

    // ---------------------------------------------------------------------- counters
    assign began = go;
    assign ended = handoff;
    assign swept_from = go_sweep;
    assign job_layer = layer;
    assign job_step = step;
    function automatic logic [CB-1:0] ones(input logic [P-1:0] x);
        ones = 0;
        for (int i = 0; i < P; i++) ones = ones + CB'(x[i]);
    endfunction
    always_ff @(posedge clk) begin
        if (clear) begin
            count_rows <= 0;
            count_pushes <= 0;
            count_reads <= 0;
            count_adds <= 0;
            count_stalls <= 0;
        end else begin
            if (v4 & ~none4 & advance) count_rows <= count_rows + 1'b1;
            count_pushes <= count_pushes + ones(pushes);
            count_reads <= count_reads + ones(reads);
            count_adds <= count_adds + ones(adds);
            if (~advance) count_stalls <= count_stalls + 1'b1;
        end
    end
endmodule

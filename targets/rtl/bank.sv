// One bank: its FIFO of rows, its weights, and its neurons' accumulators.
//
// A row waits in the FIFO until the bank has added the row before it, so banks run ahead of one
// another. Entries are added one per cycle: weight read, address, accumulator read, add. Two
// accumulators per neuron: one half takes entries while the sweep reads and clears the other.
// Accumulators are as wide as their largest possible sum: the compiler proves that none overflows.
// The weight memory stands outside, so that all banks are the same module.
module bank #(
    parameter int FORMAT = 0,    // 0: rows with indices (CSR); 1: bitmap rows; 2: dense rows
    parameter int WORDS = 16,    // neurons
    parameter int FIFO = 4,      // rows that wait, a power of two
    parameter int WB = 8,        // bits of a weight
    parameter int IB = 4,        // bits of an entry's index
    parameter int TAPS = 0,      // taps of a kernel, 0: rows are of fully connected layers
    parameter int TB = 1,        // bits of a tap's number
    parameter int SB = 6,        // bits of a row's start
    parameter int NB = 4,        // bits of a row's length, or of its bitmap
    parameter int AB = 4,        // bits of a neuron's address
    parameter int VALUE = 0,     // bits of an event's value, 0: spikes
    parameter int ACC = 16,      // bits of an accumulator
    localparam int EB = (FORMAT == 0) ? ((TAPS > 0 ? TB : 0) + IB + WB) : WB,
    localparam int MB = (TAPS > 0) ? TAPS : 1,
    localparam int VB = (VALUE > 0) ? VALUE : 1
) (
    input  logic                  clk,
    input  logic                  clear,
    // rows
    input  logic                  push,
    input  logic [SB-1:0]         start,
    input  logic [NB-1:0]         row,     // length, or bitmap
    input  logic [AB-1:0]         base,    // addresses count down from here where there are taps
    input  logic [MB-1:0]         reach,  // taps that reach the image
    input  logic signed [VB-1:0]  value,
    output logic                  full,
    output logic                  busy,
    // weight memory: read in one cycle, there in the next
    output logic                  reads,
    output logic [SB-1:0]         read_address,
    input  logic [EB-1:0]         entry,
    output logic                  adds,    // an entry is added in this cycle
    // accumulators
    input  logic                  half,
    input  logic                  sweeping,
    input  logic                  sweep_half,
    input  logic [AB-1:0]         sweep_address,
    output logic signed [ACC-1:0] sum
); /* verilator no_inline_module */
    localparam int FW = $clog2(FIFO);

    // Rows that wait.
    logic [SB+NB-1:0] fifo[0:FIFO-1];
    logic [FW:0] waiting;
    logic [FW-1:0] head, tail;
    logic [SB-1:0] at;
    logic [NB-1:0] left;
    logic [AB-1:0] row_base;
    logic [MB-1:0] row_reach;
    logic signed [VB-1:0] row_value;
    logic last;
    always_comb begin
        if (FORMAT == 1) last = (left & (left - 1'b1)) == 0;
        else last = (left >> 1) == 0;
    end
    wire pop = last & (waiting != 0);
    assign full = waiting == (FW + 1)'(FIFO);

    always_ff @(posedge clk) begin
        if (push) fifo[tail] <= {start, row};
        if (clear) begin
            waiting <= 0;
            head <= 0;
            tail <= 0;
            left <= 0;
        end else begin
            waiting <= waiting + (FW + 1)'(push) - (FW + 1)'(pop);
            if (push) tail <= tail + 1'b1;
            if (pop) begin
                {at, left} <= fifo[head];
                head <= head + 1'b1;
            end else if (left != 0) begin
                at <= at + 1'b1;
                left <= (FORMAT == 1) ? (left & (left - 1'b1)) : (left - 1'b1);
            end
        end
    end

    // What else a row brings: where its kernel lies, and the value of its event.
    generate
        if (TAPS > 0) begin : g_kernel
            logic [AB+MB-1:0] kernels[0:FIFO-1];
            always_ff @(posedge clk) begin
                if (push) kernels[tail] <= {base, reach};
                if (pop) {row_base, row_reach} <= kernels[head];
            end
        end else begin : g_no_kernel
            assign row_base = 0;
            assign row_reach = 0;
        end
        if (VALUE > 0) begin : g_value
            logic [VB-1:0] values[0:FIFO-1];
            always_ff @(posedge clk) begin
                if (push) values[tail] <= value;
                if (pop) row_value <= $signed(values[head]);
            end
        end else begin : g_no_value
            assign row_value = 0;
        end
    endgenerate

    // Where the entry that is read belongs, for rows that store no indices.
    logic [AB-1:0] place;
    generate
        if (FORMAT == 1) begin : g_lowest
            always_comb begin
                place = 0;
                for (int i = NB - 1; i >= 0; i--) if (left[i]) place = AB'(i);
            end
        end else if (FORMAT == 2) begin : g_count
            logic [AB-1:0] passed;
            always_ff @(posedge clk) passed <= (pop | (left == 0)) ? '0 : passed + 1'b1;
            assign place = passed;
        end else begin : g_stored
            assign place = 0;
        end
    endgenerate

    // Weight read.
    assign reads = left != 0;
    assign read_address = at;
    logic w_valid, a_valid, r_valid, s_valid, f_valid;
    logic a_moves, r_moves, s_moves;  // an entry, whether or not it reaches a neuron
    logic [AB-1:0] w_place, w_base, a_address, r_address, s_address, f_address;
    logic [MB-1:0] w_reach;
    logic signed [VB-1:0] w_value, a_value;
    logic signed [WB-1:0] a_weight;
    always_ff @(posedge clk) begin
        w_valid <= (left != 0) & ~clear;
        w_place <= place;
        w_base <= row_base;
        w_reach <= row_reach;
        w_value <= row_value;
    end

    // Address.
    logic [AB-1:0] address;
    logic reaches;
    generate
        if (FORMAT != 0) begin : g_place
            assign address = w_place;
            assign reaches = 1'b1;
        end else if (TAPS == 0) begin : g_index
            assign address = AB'(entry[WB+:IB]);
            assign reaches = 1'b1;
        end else begin : g_tap
            assign address = w_base - AB'(entry[WB+:IB]);
            assign reaches = w_reach[entry[WB+IB+:TB]];
        end
    endgenerate
    always_ff @(posedge clk) begin
        a_valid <= w_valid & reaches & ~clear;
        a_moves <= w_valid & ~clear;
        a_address <= address;
        a_weight <= $signed(entry[WB-1:0]);
        a_value <= w_value;
    end

    // Accumulator read, product.
    localparam int PB = (VALUE > 0) ? WB + VALUE : WB;
    logic signed [PB-1:0] r_addend, s_addend;
    generate
        if (VALUE > 0) begin : g_product
            always_ff @(posedge clk) r_addend <= a_weight * a_value;
        end else begin : g_weight
            always_ff @(posedge clk) r_addend <= a_weight;
        end
    endgenerate
    logic [2*ACC-1:0] sums_read;
    logic sweep_from;
    always_ff @(posedge clk) begin
        r_valid <= a_valid & ~clear;
        r_moves <= a_moves & ~clear;
        r_address <= a_address;
        sweep_from <= sweep_half;
    end

    // What was read. The sums of the two entries before are not in the memory yet.
    logic signed [ACC-1:0] s_read, f_sum, f_sum2;
    logic s_after_one, s_after_two;
    always_ff @(posedge clk) begin
        s_valid <= r_valid & ~clear;
        s_moves <= r_moves & ~clear;
        s_address <= r_address;
        s_addend <= r_addend;
        s_read <= $signed(sums_read[ACC*half+:ACC]);
        s_after_one <= s_valid & (s_address == r_address);
        s_after_two <= f_valid & (f_address == r_address);
    end

    // Add.
    wire signed [ACC-1:0] before_add = s_after_one ? f_sum : s_after_two ? f_sum2 : s_read;
    wire signed [ACC-1:0] after_add = before_add + ACC'(s_addend);
    always_ff @(posedge clk) begin
        f_valid <= s_valid;
        f_address <= s_address;
        f_sum <= after_add;
        f_sum2 <= f_sum;
    end

    logic sweep_read;
    logic [AB-1:0] sweep_was;
    always_ff @(posedge clk) begin
        sweep_read <= sweeping;
        sweep_was <= sweep_address;
    end
    generate
        for (genvar h = 0; h < 2; h++) begin : g_half
            logic signed [ACC-1:0] sums[0:WORDS-1];
            initial for (int i = 0; i < WORDS; i++) sums[i] = 0;
            wire swept = sweeping & (sweep_half == 1'(h));
            wire clears = sweep_read & (sweep_from == 1'(h));
            wire add = s_valid & (half == 1'(h));
            wire [AB-1:0] from = swept ? sweep_address : a_address;
            wire [AB-1:0] to = clears ? sweep_was : s_address;
            wire signed [ACC-1:0] new_sum = clears ? '0 : after_add;
            always_ff @(posedge clk) begin
                sums_read[ACC*h+:ACC] <= sums[from];
                if (clears | add) sums[to] <= new_sum;
            end
        end
    endgenerate
    assign sum = $signed(sums_read[ACC*sweep_from+:ACC]);
    assign adds = s_valid;
    assign busy = (waiting != 0) | (left != 0) | w_valid | a_moves | r_moves | s_moves;
endmodule

// Spikes of one population on their way to one engine: of each step, the list of its nonzero words.
//
// The writer's steps and the reader's are counted; STEPS of them (a power of two) are held, so a
// reader may look DELAY steps back while the writer is ahead. A reader takes a list event by event,
// the lowest lane first: one per cycle, beginning two enabled cycles after ``start``.
module spike_buffer #(
    parameter int LANES = 8,   // spikes in a word
    parameter int WORDS = 16,  // words of a step
    parameter int STEPS = 2,   // steps held, a power of two
    parameter int DELAY = 0,   // longest delay at which the reader looks back
    parameter int VALUE = 0,   // bits of the value that comes with a word, 0: none
    parameter int WW = 4,      // width of a word's number at the reader
    parameter int LW = 3,      // width of a lane's number at the reader
    parameter int TW = 12,     // width of a step's number
    localparam int VB = (VALUE > 0) ? VALUE : 1
) (
    input  logic             clk,
    input  logic             clear,
    // writer
    input  logic             put,
    input  logic [WW-1:0]    put_word,
    input  logic [LANES-1:0] put_mask,
    input  logic [VB-1:0]    put_value,
    input  logic             commit,    // with or after the step's last word
    output logic             room,      // whether a step can be written
    // reader
    input  logic             enable,    // of everything below
    input  logic             freed,     // the reader has taken in one step more
    input  logic             start,
    input  logic [TW-1:0]    step,      // of the list that starts
    input  logic             take,
    output logic             valid,
    output logic             idle,      // nothing left of the list
    output logic [WW-1:0]    word,
    output logic [LW-1:0]    lane,
    output logic [VB-1:0]    value
);
    localparam int NW = $clog2(WORDS + 1);
    localparam int AW = (WORDS > 1) ? $clog2(WORDS) : 1;
    localparam int RW = $clog2(STEPS);
    localparam int EW = VALUE + LANES + WW;

    logic [EW-1:0] list[0:(STEPS << AW)-1];
    logic [NW-1:0] length[0:STEPS-1];
    logic [NW-1:0] fill;
    logic [RW-1:0] writing;
    // Steps written and not yet taken in; a reader that looks back runs ahead of its writer.
    logic signed [RW+1:0] ahead;
    assign room = ahead < $signed((RW + 2)'(STEPS - DELAY));

    always_ff @(posedge clk) begin
        if (put) list[{writing, fill[AW-1:0]}] <= EW'({put_value, put_mask, put_word});
        if (commit) length[writing] <= fill + NW'(put);
        if (clear) begin
            writing <= 0;
            fill <= 0;
            ahead <= 0;
        end else begin
            ahead <= ahead + $signed((RW + 2)'(commit)) - $signed((RW + 2)'(freed));
            if (commit) begin
                writing <= writing + 1'b1;
                fill <= 0;
            end else if (put) fill <= fill + 1'b1;
        end
    end

    // The memory's output register holds the word after the one that is handed on.
    logic [RW-1:0] region;
    logic [AW-1:0] at;
    logic [NW-1:0] left;
    logic next_valid, valid_q;
    logic [EW-1:0] next;
    logic [LANES-1:0] mask;
    wire [LANES-1:0] rest = mask & (mask - 1'b1);
    wire load = next_valid & (~valid_q | (take & (rest == 0)));
    wire fetch = (left != 0) & (~next_valid | load);

    always_ff @(posedge clk) if (enable & fetch) next <= list[{region, at}];

    always_ff @(posedge clk) begin
        if (clear) begin
            left <= 0;
            next_valid <= 0;
            valid_q <= 0;
        end else if (enable) begin
            if (start) begin
                region <= step[RW-1:0];
                at <= 0;
                left <= length[step[RW-1:0]];
            end else if (fetch) begin
                at <= at + 1'b1;
                left <= left - 1'b1;
            end
            next_valid <= fetch | (next_valid & ~load);
            if (load) {value, mask, word} <= (VB + LANES + WW)'(next);
            else if (take) mask <= rest;
            valid_q <= load | (valid_q & ~(take & (rest == 0)));
        end
    end

    assign valid = valid_q;
    assign idle = (left == 0) & ~next_valid & ~valid_q;
    always_comb begin
        lane = 0;
        for (int i = LANES - 1; i >= 0; i--) if (mask[i]) lane = LW'(i);
    end
endmodule

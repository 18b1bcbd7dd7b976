// The order of an engine's work: layer after layer, step after step; a layer may lag some steps
// behind the first (SKEW), so that it need not wait for what was swept just before it.
module jobs #(
    parameter int LAYERS = 1,
    parameter int TW = 12,
    parameter int JW = 1,  // bits of a layer's number
    parameter logic [32*LAYERS-1:0] SKEW = '0,
    parameter int MOST = 0  // the largest
) (
    input  logic          clk,
    input  logic          clear,
    input  logic [TW-1:0] steps,
    input  logic          advance,
    output logic [JW-1:0] layer,
    output logic [TW-1:0] step,
    output logic          present,  // whether there is such a step
    output logic          over
);
    logic [TW-1:0] slot;
    logic [JW-1:0] turn;
    // Of one layer alone, all that is looked up by its number is constant.
    wire [JW-1:0] at = (LAYERS == 1) ? '0 : turn;
    wire [TW:0] behind = {1'b0, slot} - {1'b0, TW'(SKEW[32*at+:32])};
    wire last = at == JW'(LAYERS - 1);
    assign layer = at;
    assign step = behind[TW-1:0];
    assign present = ~behind[TW] & (step < steps) & ~over;
    assign over = slot >= steps + TW'(MOST);
    always_ff @(posedge clk) begin
        if (clear) begin
            slot <= 0;
            turn <= 0;
        end else if (advance) begin
            turn <= last ? '0 : at + 1'b1;
            if (last) slot <= slot + 1'b1;
        end
    end
endmodule

// The neuron update of one lane: a new membrane and a spike four cycles after its states came.
//
//     u = decay(u) + (sum << shift)
//     v = saturate(decay(v) + u + bias)
//     spike = v > threshold;  then v = reset, or v = saturate(v - reset)
//
// decay(x) = x * keep / 2^DECAY, rounded toward zero. Without a synaptic current (CURRENT = 0) u
// is the shifted sum alone. In a sample's first step v starts from ``start`` and u from 0.
module neuron #(
    parameter int ACC = 16,     // bits of the sum
    parameter int UB = 24,      // bits of u
    parameter int VB = 16,      // bits of v
    parameter int DECAY = 12,
    parameter int TB = 15,      // bits of a threshold, unsigned
    parameter int BB = 16,      // bits of a bias
    parameter bit CURRENT = 0,  // whether u is kept
    parameter bit LEAK = 1,     // whether v decays
    parameter int SH = 3        // bits of the shift
) (
    input  logic                  clk,
    input  logic                  first,
    input  logic signed [ACC-1:0] sum,
    input  logic signed [UB-1:0]  u,
    input  logic signed [VB-1:0]  v,
    input  logic [SH-1:0]         shift,
    input  logic [DECAY:0]        keep_u,
    input  logic [DECAY:0]        keep_v,
    input  logic signed [BB-1:0]  bias,
    input  logic [TB-1:0]         threshold,
    input  logic signed [VB-1:0]  reset,
    input  logic                  subtract,
    input  logic signed [VB-1:0]  start,
    output logic signed [UB-1:0]  new_u,
    output logic signed [VB-1:0]  new_v,
    output logic                  spike
); /* verilator no_inline_module */
    localparam int W = (UB > VB ? UB : VB) + 2;  // holds decay(v) + u + bias

    function automatic logic signed [VB-1:0] saturated(input logic signed [W-1:0] x);
        if (x[W-1:VB-1] == {(W - VB + 1) {x[W-1]}}) saturated = x[VB-1:0];
        else saturated = {x[W-1], {(VB - 1) {~x[W-1]}}};
    endfunction

    // A first step's states, and what waits for a turn.
    logic signed [VB-1:0] from_v;
    logic signed [UB-1:0] from_u;
    logic signed [ACC-1:0] sum1;
    logic [DECAY:0] keep_u1, keep_v1;
    always_ff @(posedge clk) begin
        from_v <= first ? start : v;
        from_u <= first ? '0 : u;
        sum1 <= sum;
        keep_u1 <= keep_u;
        keep_v1 <= keep_v;
    end

    // Products.
    logic signed [VB-1:0] v3;
    logic signed [UB-1:0] decayed_u;
    generate
        if (LEAK) begin : g_leak
            logic signed [VB+DECAY+1:0] product;
            wire signed [VB+DECAY+1:0] toward_zero =
                product + (VB + DECAY + 2)'({DECAY{product[VB+DECAY+1]}});
            always_ff @(posedge clk) begin
                product <= from_v * $signed({1'b0, keep_v1});
                v3 <= VB'(toward_zero >>> DECAY);
            end
        end else begin : g_keep
            logic signed [VB-1:0] v2;
            always_ff @(posedge clk) begin
                v2 <= from_v;
                v3 <= v2;
            end
        end
        if (CURRENT) begin : g_current
            logic signed [UB+DECAY+1:0] product;
            wire signed [UB+DECAY+1:0] toward_zero =
                product + (UB + DECAY + 2)'({DECAY{product[UB+DECAY+1]}});
            always_ff @(posedge clk) product <= from_u * $signed({1'b0, keep_u1});
            assign decayed_u = UB'(toward_zero >>> DECAY);
        end else begin : g_no_current
            assign decayed_u = 0;
        end
    endgenerate
    logic signed [ACC-1:0] sum2;
    logic signed [UB-1:0] u3;
    always_ff @(posedge clk) begin
        sum2 <= sum1;
        u3 <= decayed_u + (UB'(sum2) <<< shift);
    end

    // Parameters of a table arrive with the states and wait for their turn.
    logic signed [BB-1:0] bias1, bias2, bias3;
    logic [TB-1:0] threshold1, threshold2, threshold3, threshold4;
    logic signed [VB-1:0] reset1, reset2, reset3, reset4;
    always_ff @(posedge clk) begin
        {bias3, bias2, bias1} <= {bias2, bias1, bias};
        {threshold4, threshold3} <= {threshold3, threshold2};
        {threshold2, threshold1} <= {threshold1, threshold};
        {reset4, reset3, reset2, reset1} <= {reset3, reset2, reset1, reset};
    end

    logic signed [VB-1:0] v4;
    logic signed [UB-1:0] u4;
    always_ff @(posedge clk) begin
        v4 <= saturated(W'(v3) + W'(u3) + W'(bias3));
        u4 <= u3;
    end

    assign spike = v4 > $signed({1'b0, threshold4});
    wire signed [VB-1:0] less = saturated(W'(v4) - W'(reset4));
    assign new_v = spike ? (subtract ? less : reset4) : v4;
    assign new_u = u4;
endmodule

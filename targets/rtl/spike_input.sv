// Input events from an AXI4-Stream. A beat is one event; the last beat of a step has tlast, and
// tuser where the step ends without one more event.
module spike_input #(
    parameter int IB = 10,  // bits of an event's number
    parameter int VB = 1,   // bits of its value
    parameter int TW = 12
) (
    input  logic             clk,
    input  logic             clear,
    input  logic             run,
    input  logic [TW-1:0]    steps,
    input  logic             s_tvalid,
    output logic             s_tready,
    input  logic [VB+IB-1:0] s_tdata,  // {value, number}
    input  logic             s_tuser,
    input  logic             s_tlast,
    input  logic             room,
    output logic             put,
    output logic [IB-1:0]    put_word,
    output logic [VB-1:0]    put_value,
    output logic             commit
);
    logic [TW-1:0] sent;
    assign s_tready = run & ~clear & room & (sent < steps);
    wire beat = s_tvalid & s_tready;
    assign put = beat & ~s_tuser;
    assign {put_value, put_word} = s_tdata;
    assign commit = beat & s_tlast;
    always_ff @(posedge clk) begin
        if (clear) sent <= 0;
        else if (commit) sent <= sent + 1'b1;
    end
endmodule

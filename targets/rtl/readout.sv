// Reads the prediction from the output layer as it is swept: scores per neuron, summed over groups,
// the largest first; of equal ones the lowest class.
//
// After the last step, and with STOPS after every step from FIRST on, the scores are scanned, one
// neuron per cycle. A step whose lead of the best class over the second is above the step's
// threshold stops the sample. No word of the output layer may be swept while a scan runs (``hold``).
module readout #(
    parameter int P = 8,
    parameter int WORDS = 2,
    parameter int SLOTS = 2,     // words of a pixel
    parameter int NEURONS = 10,
    parameter int PIXELS = 1,
    parameter int GROUP = 1,     // neurons of a class
    parameter int KIND = 0,      // 0: spikes summed; membranes 1: summed, 2: largest, 3: last
    parameter int FIRST = 0,     // first step that counts
    parameter int LAST = 4095,   // and the one behind the last
    parameter bit STOPS = 0,
    parameter int STEPS = 1,     // thresholds
    parameter int VB = 16,
    parameter int SB = 16,       // bits of a score, and of a threshold
    parameter int AB = 4,
    parameter int TW = 12,
    parameter int CB = 4,        // bits of a class
    parameter     THRESHOLDS = ""
) (
    input  logic            clk,
    input  logic            clear,
    input  logic [TW-1:0]   steps,
    // the output layer's sweep
    input  logic            put,
    input  logic [TW-1:0]   step,
    input  logic [AB-1:0]   word,
    input  logic [P-1:0]    mask,
    input  logic [P*VB-1:0] v,
    input  logic            commit,
    output logic            hold,
    // the result: of a scan, and of the sample
    output logic            scanned,
    output logic            stops,     // this scan ends the sample
    output logic [TW-1:0]   at_step,
    output logic [CB-1:0]   best
);
    localparam int NB = $clog2(NEURONS + 1);
    localparam int WA = (WORDS > 1) ? $clog2(WORDS) : 1;
    localparam int LB = (P > 1) ? $clog2(P) : 1;

    // Scores.
    logic [P*SB-1:0] scores[0:WORDS-1];
    logic [P*SB-1:0] old, updated;
    logic put2, counts2, initial2;
    logic [AB-1:0] word2;
    logic [P-1:0] mask2;
    logic [P*VB-1:0] v2;
    logic [AB-1:0] scan_word;
    logic scanning;
    always_ff @(posedge clk) begin
        old <= scores[WA'(scanning ? scan_word : word)];
        put2 <= put & ~clear;
        counts2 <= (step + 1'b1 > TW'(FIRST)) & (step < TW'(LAST));
        initial2 <= step == TW'(FIRST);
        {word2, mask2, v2} <= {word, mask, v};
        if (put2 & counts2) scores[WA'(word2)] <= updated;
    end
    always_comb begin
        for (int b = 0; b < P; b++) begin
            automatic logic signed [SB-1:0] held, now;
            held = $signed(old[SB*b+:SB]);
            now = (KIND == 0) ? SB'(mask2[b]) : SB'($signed(v2[VB*b+:VB]));
            if (initial2 || KIND == 3) updated[SB*b+:SB] = now;
            else if (KIND == 2) updated[SB*b+:SB] = (now > held) ? now : held;
            else updated[SB*b+:SB] = held + now;
        end
    end

    // Scan: channel after channel, pixel after pixel.
    logic [1:0] settle;  // until the last word's scores are written
    logic [NB-1:0] left;
    logic [31:0] pixel, slot;
    logic [LB-1:0] lane, lane1;
    logic read1, last1;
    always_ff @(posedge clk) begin
        if (clear) begin
            {hold, scanning, settle, read1} <= '0;
        end else begin
            if (commit & ((STOPS & (step + 1'b1 > TW'(FIRST))) | (step + 1'b1 == steps))) begin
                hold <= 1'b1;
                settle <= 2'd2;
                at_step <= step;
            end else if (settle != 0) begin
                settle <= settle - 1'b1;
                if (settle == 1) begin
                    scanning <= 1'b1;
                    left <= NB'(NEURONS);
                end
            end else if (scanning & (left == 0)) scanning <= 1'b0;
            if (scanning & (left != 0)) left <= left - 1'b1;
            if (scanned) hold <= 1'b0;
            read1 <= scanning & (left != 0);
        end
        last1 <= left == 1;
        lane1 <= lane;
        if (settle != 0) begin
            scan_word <= 0;
            pixel <= 0;
            slot <= 0;
            lane <= 0;
        end else if (scanning) begin
            if (pixel + 1 < PIXELS) begin
                pixel <= pixel + 1;
                scan_word <= scan_word + AB'(SLOTS);
            end else begin
                pixel <= 0;
                if (32'(lane) + 1 < P) begin
                    lane <= lane + 1'b1;
                    scan_word <= AB'(slot);
                end else begin
                    lane <= 0;
                    slot <= slot + 1;
                    scan_word <= AB'(slot + 1);
                end
            end
        end
    end

    // Sums of groups, the best and the second best.
    logic signed [SB-1:0] sum, first_score, second_score, score;
    logic [31:0] member;
    logic [CB-1:0] class_now;
    logic any, ends2, last2, last3;
    wire signed [SB-1:0] read_score = $signed(old[SB*lane1+:SB]);
    wire ends = member + 1 == GROUP;
    always_ff @(posedge clk) begin
        ends2 <= read1 & ends;
        last2 <= read1 & last1 & ~clear;
        last3 <= last2 & ~clear;
        if (settle != 0) begin
            member <= 0;
            sum <= 0;
        end else if (read1) begin
            member <= ends ? 0 : member + 1;
            sum <= ends ? '0 : sum + read_score;
        end
        score <= sum + read_score;
        if (settle != 0) begin
            any <= 0;
            class_now <= 0;
        end else if (ends2) begin
            class_now <= class_now + 1'b1;
            if (~any) begin
                any <= 1'b1;
                first_score <= score;
                second_score <= score;  // of one class alone the lead is 0
                best <= class_now;
            end else if (score > first_score) begin
                first_score <= score;
                second_score <= first_score;
                best <= class_now;
            end else if ((class_now == 1) | (score > second_score)) second_score <= score;
        end
    end
    logic over_threshold;
    generate
        if (STOPS) begin : g_stops
            logic [SB-1:0] thresholds[0:STEPS-1];
            initial $readmemh(THRESHOLDS, thresholds);
            logic [SB-1:0] threshold;
            localparam int SA = (STEPS > 1) ? $clog2(STEPS) : 1;
            always_ff @(posedge clk) threshold <= thresholds[SA'(at_step)];
            wire [SB-1:0] lead = $unsigned(first_score - second_score);
            assign over_threshold = lead > threshold;
        end else begin : g_runs
            assign over_threshold = 1'b0;
        end
    endgenerate
    assign scanned = last3;
    assign stops = over_threshold | (at_step + 1'b1 == steps);
endmodule

// The rule of a stream, on any of its ends: once offered, a beat stays and does not change until it
// is taken.  `broken` is high in the cycle in which it is not so.
module n2uq_contract #(parameter WIDTH = 1) (
    input clk, input rst, input valid, input ready, input [WIDTH-1:0] payload, output broken
);
    reg waiting;
    reg [WIDTH-1:0] held;
    assign broken = waiting && !(valid && payload == held);
    always @(posedge clk) begin
        waiting <= !rst && valid && !ready;
        held <= payload;
    end
endmodule

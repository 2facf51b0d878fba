// What block RAMs of FPGAs have in common: 2,048 bytes of 9 bits behind two ports.
//
// A port of width 9, 18 or 36 moves 1, 2 or 4 bytes, the low one at the lowest address; one of width
// 1, 2 or 4 moves bits of the low 8 of a byte.  `addr` counts bits, 8 to a byte; a port ignores those
// below its width.  `we` has a bit for each byte.  `q` comes with the clock; where the port writes it
// keeps its value (MODE 0), or is what is written (1), or what was there before (2).
// Byte k begins at bit k / GROUP * STRIDE + k % GROUP * BYTE of INIT and has BYTE bits there.
// Port A is the low half of each vector.
module n2uq_block_ram #(
    parameter TOTAL = 18432, parameter [TOTAL - 1:0] INIT = 0,
    parameter GROUP = 1, parameter STRIDE = 9, parameter BYTE = 9,
    parameter WIDTH_A = 9, parameter WIDTH_B = 9, parameter MODE_A = 0, parameter MODE_B = 0,
    parameter ASYNC = 0,        // reset of `q` at once; else with the clock, whatever `en` is
    parameter RESET_BLOCKS = 0  // whether a reset with the clock lets nothing be written
) (
    input [1:0] clk, input [1:0] en, input [1:0] rst, input [7:0] we, input [27:0] addr,
    input [71:0] d, output reg [71:0] q
);
    reg [8:0] bytes [0:2047];
    integer k;
    initial begin
        for (k = 0; k < 2048; k = k + 1)
            bytes[k] = 9'(INIT[k / GROUP * STRIDE + k % GROUP * BYTE +: BYTE]);
        q = 0;
    end

    genvar p;
    generate for (p = 0; p < 2; p = p + 1) begin : port
        localparam WIDTH = p ? WIDTH_B : WIDTH_A, MODE = p ? MODE_B : MODE_A;
        localparam LANES = WIDTH < 9 ? 1 : WIDTH / 9;
        localparam BITS = WIDTH < 9 ? WIDTH : 9;  // that a lane moves
        wire [13:0] a = addr[14 * p +: 14];
        wire [10:0] first = a[13:3] & ~(11'(LANES) - 11'd1);
        wire [2:0] at = BITS == 9 ? 3'd0 : a[2:0] & ~(3'(BITS) - 3'd1);
        wire [8:0] mask = 9'(((10'd1 << BITS) - 10'd1) << at);
        wire blocked = RESET_BLOCKS && !ASYNC && rst[p];
        wire [3:0] lanes = en[p] && !blocked ? we[4 * p +: 4] & 4'((5'd1 << LANES) - 5'd1) : 4'd0;
        integer lane;
        reg [8:0] old_byte, new_byte;
        reg [35:0] value;

        initial if (WIDTH != 1 && WIDTH != 2 && WIDTH != 4 && WIDTH != 9 && WIDTH != 18 && WIDTH != 36)
            $fatal(1, "%m: no model of ports of %0d bits", WIDTH);

        always @(posedge clk[p]) begin
            value = 0;
            for (lane = 0; lane < LANES; lane = lane + 1) begin
                old_byte = bytes[first + 11'(lane)];
                new_byte = lanes[lane] ? old_byte & ~mask | d[36 * p + 9 * lane +: 9] << at & mask : old_byte;
                if (lanes[lane]) bytes[first + 11'(lane)] <= new_byte;
                value[9 * lane +: 9] = ((MODE == 1 ? new_byte : old_byte) & mask) >> at;
            end
            if (en[p] && !(MODE == 0 && lanes != 0)) q[36 * p +: 36] <= value;
            if (rst[p]) q[36 * p +: 36] <= 0;
        end
        if (ASYNC) begin : asynchronous
            always @(posedge rst[p]) q[36 * p +: 36] <= 0;
        end
    end endgenerate
endmodule

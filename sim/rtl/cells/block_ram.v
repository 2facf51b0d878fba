// What block RAMs of FPGAs have in common: bytes of 9 bits behind two ports.
//
// A port of width 9, 18, 36 or 72 moves 1 to 8 bytes, the low one at the lowest address; one of width
// 1, 2 or 4 moves bits of the low 8 of a byte.  `addr` counts bits, 8 to a byte; a port ignores those
// below its width.  `we` has a bit for each byte.  `q` comes with the clock; where the port writes it
// keeps its value (MODE 0), or is what is written (1), or what was there before (2).
// Byte k begins at bit k / GROUP * STRIDE + k % GROUP * BYTE of INIT and has BYTE bits there; where
// these are 8, PARITY has the ninth.  Port A is the low half of each vector.
module n2uq_block_ram #(
    parameter BYTES = 2048, parameter LANES = 4,  // bytes that the widest port moves
    parameter TOTAL = 18432, parameter [TOTAL - 1:0] INIT = 0, parameter [BYTES - 1:0] PARITY = 0,
    parameter GROUP = 1, parameter STRIDE = 9, parameter BYTE = 9,
    parameter WIDTH_A = 9, parameter WIDTH_B = 9, parameter MODE_A = 0, parameter MODE_B = 0,
    parameter [18 * LANES - 1:0] START = 0, parameter [18 * LANES - 1:0] RESET = 0,  // values of `q`
    parameter ASYNC = 0,        // reset of `q` at once; else with the clock, whatever `en` is
    parameter RESET_ENABLED = 0,  // a reset with the clock needs `en`
    parameter RESET_BLOCKS = 0  // whether a reset with the clock lets nothing be written
) (
    input [1:0] clk, input [1:0] en, input [1:0] rst, input [2 * LANES - 1:0] we,
    input [2 * $clog2(8 * BYTES) - 1:0] addr, input [18 * LANES - 1:0] d, output reg [18 * LANES - 1:0] q
);
    localparam AT = $clog2(8 * BYTES), MOST = 9 * LANES;
    reg [8:0] bytes [0:BYTES - 1];
    integer k;
    initial begin
        for (k = 0; k < BYTES; k = k + 1)
            bytes[k] = 9'(INIT[k / GROUP * STRIDE + k % GROUP * BYTE +: BYTE]) | {PARITY[k], 8'd0};
        q = START;
    end

    genvar p;
    generate for (p = 0; p < 2; p = p + 1) begin : port
        localparam WIDTH = p ? WIDTH_B : WIDTH_A, MODE = p ? MODE_B : MODE_A;
        localparam MOVED = WIDTH < 9 ? 1 : WIDTH / 9;
        localparam BITS = WIDTH < 9 ? WIDTH : 9;  // that a lane moves
        wire [AT - 1:0] a = addr[AT * p +: AT];
        wire [AT - 4:0] first = a[AT - 1:3] & ~((AT - 3)'(MOVED) - 1'd1);
        wire [2:0] at = BITS == 9 ? 3'd0 : a[2:0] & ~(3'(BITS) - 3'd1);
        wire [8:0] mask = 9'(((10'd1 << BITS) - 10'd1) << at);
        wire blocked = RESET_BLOCKS && !ASYNC && rst[p];
        wire [LANES - 1:0] lanes = en[p] && !blocked
            ? we[LANES * p +: LANES] & LANES'((9'd1 << MOVED) - 9'd1) : 0;
        integer lane;
        reg [8:0] old_byte, new_byte;
        reg [MOST - 1:0] value;

        initial if (WIDTH != 1 && WIDTH != 2 && WIDTH != 4 && WIDTH != 9 && WIDTH != 18 && WIDTH != 36
                    && WIDTH != 72 || MOVED > LANES)
            $fatal(1, "%m: no model of ports of %0d bits", WIDTH);

        always @(posedge clk[p]) begin
            value = 0;
            for (lane = 0; lane < MOVED; lane = lane + 1) begin
                old_byte = bytes[first + (AT - 3)'(lane)];
                new_byte = lanes[lane] ? old_byte & ~mask | d[MOST * p + 9 * lane +: 9] << at & mask
                    : old_byte;
                if (lanes[lane]) bytes[first + (AT - 3)'(lane)] <= new_byte;
                value[9 * lane +: 9] = ((MODE == 1 ? new_byte : old_byte) & mask) >> at;
            end
            if (en[p] && !(MODE == 0 && lanes != 0)) q[MOST * p +: MOST] <= value;
            if (rst[p] && (en[p] || !RESET_ENABLED)) q[MOST * p +: MOST] <= RESET[MOST * p +: MOST];
        end
        if (ASYNC) begin : asynchronous
            always @(posedge rst[p]) q[MOST * p +: MOST] <= 0;
        end
    end endgenerate
endmodule

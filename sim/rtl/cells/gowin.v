// Models of cells of Gowin that Yosys leaves as black boxes, in the modes that Yosys uses.

// The contents of a RAM, in 64 parameters of so many bits; and all of them as one number.
`define N2UQ_INIT(BITS) parameter  \
    INIT_RAM_00 = {BITS{1'b0}}, INIT_RAM_01 = {BITS{1'b0}}, INIT_RAM_02 = {BITS{1'b0}}, INIT_RAM_03 = {BITS{1'b0}},  \
    INIT_RAM_04 = {BITS{1'b0}}, INIT_RAM_05 = {BITS{1'b0}}, INIT_RAM_06 = {BITS{1'b0}}, INIT_RAM_07 = {BITS{1'b0}},  \
    INIT_RAM_08 = {BITS{1'b0}}, INIT_RAM_09 = {BITS{1'b0}}, INIT_RAM_0A = {BITS{1'b0}}, INIT_RAM_0B = {BITS{1'b0}},  \
    INIT_RAM_0C = {BITS{1'b0}}, INIT_RAM_0D = {BITS{1'b0}}, INIT_RAM_0E = {BITS{1'b0}}, INIT_RAM_0F = {BITS{1'b0}},  \
    INIT_RAM_10 = {BITS{1'b0}}, INIT_RAM_11 = {BITS{1'b0}}, INIT_RAM_12 = {BITS{1'b0}}, INIT_RAM_13 = {BITS{1'b0}},  \
    INIT_RAM_14 = {BITS{1'b0}}, INIT_RAM_15 = {BITS{1'b0}}, INIT_RAM_16 = {BITS{1'b0}}, INIT_RAM_17 = {BITS{1'b0}},  \
    INIT_RAM_18 = {BITS{1'b0}}, INIT_RAM_19 = {BITS{1'b0}}, INIT_RAM_1A = {BITS{1'b0}}, INIT_RAM_1B = {BITS{1'b0}},  \
    INIT_RAM_1C = {BITS{1'b0}}, INIT_RAM_1D = {BITS{1'b0}}, INIT_RAM_1E = {BITS{1'b0}}, INIT_RAM_1F = {BITS{1'b0}},  \
    INIT_RAM_20 = {BITS{1'b0}}, INIT_RAM_21 = {BITS{1'b0}}, INIT_RAM_22 = {BITS{1'b0}}, INIT_RAM_23 = {BITS{1'b0}},  \
    INIT_RAM_24 = {BITS{1'b0}}, INIT_RAM_25 = {BITS{1'b0}}, INIT_RAM_26 = {BITS{1'b0}}, INIT_RAM_27 = {BITS{1'b0}},  \
    INIT_RAM_28 = {BITS{1'b0}}, INIT_RAM_29 = {BITS{1'b0}}, INIT_RAM_2A = {BITS{1'b0}}, INIT_RAM_2B = {BITS{1'b0}},  \
    INIT_RAM_2C = {BITS{1'b0}}, INIT_RAM_2D = {BITS{1'b0}}, INIT_RAM_2E = {BITS{1'b0}}, INIT_RAM_2F = {BITS{1'b0}},  \
    INIT_RAM_30 = {BITS{1'b0}}, INIT_RAM_31 = {BITS{1'b0}}, INIT_RAM_32 = {BITS{1'b0}}, INIT_RAM_33 = {BITS{1'b0}},  \
    INIT_RAM_34 = {BITS{1'b0}}, INIT_RAM_35 = {BITS{1'b0}}, INIT_RAM_36 = {BITS{1'b0}}, INIT_RAM_37 = {BITS{1'b0}},  \
    INIT_RAM_38 = {BITS{1'b0}}, INIT_RAM_39 = {BITS{1'b0}}, INIT_RAM_3A = {BITS{1'b0}}, INIT_RAM_3B = {BITS{1'b0}},  \
    INIT_RAM_3C = {BITS{1'b0}}, INIT_RAM_3D = {BITS{1'b0}}, INIT_RAM_3E = {BITS{1'b0}}, INIT_RAM_3F = {BITS{1'b0}};
`define N2UQ_CONTENTS {  \
    INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39, INIT_RAM_38,  \
    INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30,  \
    INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,  \
    INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20,  \
    INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18,  \
    INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,  \
    INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08,  \
    INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00}

module SP(
    output [31:0] DO, input [31:0] DI, input [2:0] BLKSEL, input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    parameter READ_MODE = 0, WRITE_MODE = 0, BIT_WIDTH = 32, BLK_SEL = 0, RESET_MODE = "SYNC";
    `N2UQ_INIT(256)

    initial begin
        if (READ_MODE != 0) $fatal(1, "%m: no model of output registers");
        if (BLK_SEL != 0) $fatal(1, "%m: no model of BLK_SEL");
    end
    wire [35:0] qa, qb;
    assign DO = {qa[27 +: 8], qa[18 +: 8], qa[9 +: 8], qa[0 +: 8]};
    n2uq_block_ram #(
        .TOTAL(64 * 256), .INIT(`N2UQ_CONTENTS),
        .STRIDE(8), .BYTE(8), .WIDTH_A(BIT_WIDTH < 8 ? BIT_WIDTH : BIT_WIDTH / 8 * 9), .WIDTH_B(BIT_WIDTH
        < 8 ? BIT_WIDTH : BIT_WIDTH / 8 * 9), .MODE_A(WRITE_MODE),
        .MODE_B(0), .ASYNC(RESET_MODE == "ASYNC")
    ) ram (
        .clk({1'b0, CLK}), .en({1'b0, CE && BLKSEL == 0}), .rst({1'b0, RESET}),
        .we({4'd0, WRE ? BIT_WIDTH == 32 ? AD[3:0] : BIT_WIDTH == 16 ? {2'b00, AD[1:0]} : 4'd1 : 4'd0}),
        .addr({14'd0, AD}), .d({36'd0, {1'b0, DI[24 +: 8], 1'b0, DI[16 +: 8], 1'b0, DI[8 +: 8], 1'b0, DI[0
        +: 8]}}),
        .q({qb, qa})
    );
endmodule

module SPX9(
    output [35:0] DO, input [35:0] DI, input [2:0] BLKSEL, input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    parameter READ_MODE = 0, WRITE_MODE = 0, BIT_WIDTH = 36, BLK_SEL = 0, RESET_MODE = "SYNC";
    `N2UQ_INIT(288)

    initial begin
        if (READ_MODE != 0) $fatal(1, "%m: no model of output registers");
        if (BLK_SEL != 0) $fatal(1, "%m: no model of BLK_SEL");
    end
    wire [35:0] qa, qb;
    assign DO = {qa[27 +: 9], qa[18 +: 9], qa[9 +: 9], qa[0 +: 9]};
    n2uq_block_ram #(
        .TOTAL(64 * 288), .INIT(`N2UQ_CONTENTS),
        .STRIDE(9), .BYTE(9), .WIDTH_A(BIT_WIDTH), .WIDTH_B(BIT_WIDTH), .MODE_A(WRITE_MODE),
        .MODE_B(0), .ASYNC(RESET_MODE == "ASYNC")
    ) ram (
        .clk({1'b0, CLK}), .en({1'b0, CE && BLKSEL == 0}), .rst({1'b0, RESET}),
        .we({4'd0, WRE ? BIT_WIDTH == 36 ? AD[3:0] : BIT_WIDTH == 18 ? {2'b00, AD[1:0]} : 4'd1 : 4'd0}),
        .addr({14'd0, AD}), .d({36'd0, {DI[27 +: 9], DI[18 +: 9], DI[9 +: 9], DI[0 +: 9]}}),
        .q({qb, qa})
    );
endmodule

module SDPB(
    output [31:0] DO, input [31:0] DI, input [2:0] BLKSELA, BLKSELB, input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
    parameter READ_MODE = 0, BIT_WIDTH_0 = 32, BIT_WIDTH_1 = 32, BLK_SEL_0 = 0, BLK_SEL_1 = 0;
    parameter RESET_MODE = "SYNC";
    `N2UQ_INIT(256)

    initial begin
        if (READ_MODE != 0) $fatal(1, "%m: no model of output registers");
        if (BLK_SEL_0 != 0 || BLK_SEL_1 != 0) $fatal(1, "%m: no model of BLK_SEL");
    end
    wire [35:0] qa, qb;
    assign DO = {qb[27 +: 8], qb[18 +: 8], qb[9 +: 8], qb[0 +: 8]};
    n2uq_block_ram #(
        .TOTAL(64 * 256), .INIT(`N2UQ_CONTENTS),
        .STRIDE(8), .BYTE(8), .WIDTH_A(BIT_WIDTH_0 < 8 ? BIT_WIDTH_0 : BIT_WIDTH_0 / 8 * 9),
        .WIDTH_B(BIT_WIDTH_1 < 8 ? BIT_WIDTH_1 : BIT_WIDTH_1 / 8 * 9), .MODE_A(0),
        .MODE_B(0), .ASYNC(RESET_MODE == "ASYNC")
    ) ram (
        .clk({CLKB, CLKA}), .en({CEB && BLKSELB == 0, CEA && BLKSELA == 0}), .rst({RESETB, RESETA}),
        .we({4'd0, BIT_WIDTH_0 == 32 ? ADA[3:0] : BIT_WIDTH_0 == 16 ? {2'b00, ADA[1:0]} : 4'd1}),
        .addr({ADB, ADA}), .d({36'd0, {1'b0, DI[24 +: 8], 1'b0, DI[16 +: 8], 1'b0, DI[8 +: 8], 1'b0, DI[0
        +: 8]}}),
        .q({qb, qa})
    );
endmodule

module SDPX9B(
    output [35:0] DO, input [35:0] DI, input [2:0] BLKSELA, BLKSELB, input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
    parameter READ_MODE = 0, BIT_WIDTH_0 = 36, BIT_WIDTH_1 = 36, BLK_SEL_0 = 0, BLK_SEL_1 = 0;
    parameter RESET_MODE = "SYNC";
    `N2UQ_INIT(288)

    initial begin
        if (READ_MODE != 0) $fatal(1, "%m: no model of output registers");
        if (BLK_SEL_0 != 0 || BLK_SEL_1 != 0) $fatal(1, "%m: no model of BLK_SEL");
    end
    wire [35:0] qa, qb;
    assign DO = {qb[27 +: 9], qb[18 +: 9], qb[9 +: 9], qb[0 +: 9]};
    n2uq_block_ram #(
        .TOTAL(64 * 288), .INIT(`N2UQ_CONTENTS),
        .STRIDE(9), .BYTE(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .MODE_A(0),
        .MODE_B(0), .ASYNC(RESET_MODE == "ASYNC")
    ) ram (
        .clk({CLKB, CLKA}), .en({CEB && BLKSELB == 0, CEA && BLKSELA == 0}), .rst({RESETB, RESETA}),
        .we({4'd0, BIT_WIDTH_0 == 36 ? ADA[3:0] : BIT_WIDTH_0 == 18 ? {2'b00, ADA[1:0]} : 4'd1}),
        .addr({ADB, ADA}), .d({36'd0, {DI[27 +: 9], DI[18 +: 9], DI[9 +: 9], DI[0 +: 9]}}),
        .q({qb, qa})
    );
endmodule

module DPB(
    output [15:0] DOA, DOB, input [15:0] DIA, DIB, input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB, input CLKA, CLKB, CEA, CEB, OCEA, OCEB, RESETA, RESETB, WREA, WREB
);
    parameter READ_MODE0 = 0, READ_MODE1 = 0, WRITE_MODE0 = 0, WRITE_MODE1 = 0, BIT_WIDTH_0 = 16;
    parameter BIT_WIDTH_1 = 16, BLK_SEL_0 = 0, BLK_SEL_1 = 0, RESET_MODE = "SYNC";
    `N2UQ_INIT(256)

    initial begin
        if (READ_MODE0 != 0 || READ_MODE1 != 0) $fatal(1, "%m: no model of output registers");
        if (BLK_SEL_0 != 0 || BLK_SEL_1 != 0) $fatal(1, "%m: no model of BLK_SEL");
    end
    wire [35:0] qa, qb;
    assign DOB = {qb[9 +: 8], qb[0 +: 8]};
    assign DOA = {qa[9 +: 8], qa[0 +: 8]};
    n2uq_block_ram #(
        .TOTAL(64 * 256), .INIT(`N2UQ_CONTENTS),
        .STRIDE(8), .BYTE(8), .WIDTH_A(BIT_WIDTH_0 < 8 ? BIT_WIDTH_0 : BIT_WIDTH_0 / 8 * 9),
        .WIDTH_B(BIT_WIDTH_1 < 8 ? BIT_WIDTH_1 : BIT_WIDTH_1 / 8 * 9), .MODE_A(WRITE_MODE0),
        .MODE_B(WRITE_MODE1), .ASYNC(RESET_MODE == "ASYNC")
    ) ram (
        .clk({CLKB, CLKA}), .en({CEB && BLKSELB == 0, CEA && BLKSELA == 0}), .rst({RESETB, RESETA}),
        .we({WREB ? BIT_WIDTH_1 == 16 ? {2'b00, ADB[1:0]} : 4'd1 : 4'd0,
             WREA ? BIT_WIDTH_0 == 16 ? {2'b00, ADA[1:0]} : 4'd1 : 4'd0}),
        .addr({ADB, ADA}), .d({{18'd0, 1'b0, DIB[8 +: 8], 1'b0, DIB[0 +: 8]}, {18'd0, 1'b0, DIA[8 +: 8],
        1'b0, DIA[0 +: 8]}}),
        .q({qb, qa})
    );
endmodule

module DPX9B(
    output [17:0] DOA, DOB, input [17:0] DIA, DIB, input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB, input CLKA, CLKB, CEA, CEB, OCEA, OCEB, RESETA, RESETB, WREA, WREB
);
    parameter READ_MODE0 = 0, READ_MODE1 = 0, WRITE_MODE0 = 0, WRITE_MODE1 = 0, BIT_WIDTH_0 = 18;
    parameter BIT_WIDTH_1 = 18, BLK_SEL_0 = 0, BLK_SEL_1 = 0, RESET_MODE = "SYNC";
    `N2UQ_INIT(288)

    initial begin
        if (READ_MODE0 != 0 || READ_MODE1 != 0) $fatal(1, "%m: no model of output registers");
        if (BLK_SEL_0 != 0 || BLK_SEL_1 != 0) $fatal(1, "%m: no model of BLK_SEL");
    end
    wire [35:0] qa, qb;
    assign DOB = {qb[9 +: 9], qb[0 +: 9]};
    assign DOA = {qa[9 +: 9], qa[0 +: 9]};
    n2uq_block_ram #(
        .TOTAL(64 * 288), .INIT(`N2UQ_CONTENTS),
        .STRIDE(9), .BYTE(9), .WIDTH_A(BIT_WIDTH_0), .WIDTH_B(BIT_WIDTH_1), .MODE_A(WRITE_MODE0),
        .MODE_B(WRITE_MODE1), .ASYNC(RESET_MODE == "ASYNC")
    ) ram (
        .clk({CLKB, CLKA}), .en({CEB && BLKSELB == 0, CEA && BLKSELA == 0}), .rst({RESETB, RESETA}),
        .we({WREB ? BIT_WIDTH_1 == 18 ? {2'b00, ADB[1:0]} : 4'd1 : 4'd0,
             WREA ? BIT_WIDTH_0 == 18 ? {2'b00, ADA[1:0]} : 4'd1 : 4'd0}),
        .addr({ADB, ADA}), .d({{18'd0, DIB[9 +: 9], DIB[0 +: 9]}, {18'd0, DIA[9 +: 9], DIA[0 +: 9]}}),
        .q({qb, qa})
    );
endmodule

module MULT9X9(
    input [8:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [17:0] DOUT, output [8:0] SOA, SOB
);
    parameter AREG = 0, BREG = 0, OUT_REG = 0, PIPE_REG = 0, ASIGN_REG = 0, BSIGN_REG = 0, SOA_REG = 0;
    parameter MULT_RESET_MODE = "SYNC";
    initial if (AREG || BREG || OUT_REG || PIPE_REG || ASIGN_REG || BSIGN_REG || SOA_REG)
        $fatal(1, "%m: no model of registers");
    wire signed [9:0] a = {ASIGN & A[8], A}, b = {BSIGN & B[8], B};
    wire signed [19:0] p = a * b;
    assign DOUT = p[17:0];
    assign SOA = A;
    assign SOB = B;
endmodule

module MULT18X18(
    input [17:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [35:0] DOUT, output [17:0] SOA, SOB
);
    parameter AREG = 0, BREG = 0, OUT_REG = 0, PIPE_REG = 0, ASIGN_REG = 0, BSIGN_REG = 0, SOA_REG = 0;
    parameter MULT_RESET_MODE = "SYNC";
    initial if (AREG || BREG || OUT_REG || PIPE_REG || ASIGN_REG || BSIGN_REG || SOA_REG)
        $fatal(1, "%m: no model of registers");
    wire signed [18:0] a = {ASIGN & A[17], A}, b = {BSIGN & B[17], B};
    wire signed [37:0] p = a * b;
    assign DOUT = p[35:0];
    assign SOA = A;
    assign SOB = B;
endmodule

module MULT36X36(
    input [35:0] A, B, input ASIGN, BSIGN, CE, CLK, RESET, output [71:0] DOUT
);
    parameter AREG = 0, BREG = 0, OUT0_REG = 0, OUT1_REG = 0, PIPE_REG = 0, ASIGN_REG = 0, BSIGN_REG = 0;
    parameter MULT_RESET_MODE = "SYNC";
    initial if (AREG || BREG || OUT0_REG || OUT1_REG || PIPE_REG || ASIGN_REG || BSIGN_REG)
        $fatal(1, "%m: no model of registers");
    wire signed [36:0] a = {ASIGN & A[35], A}, b = {BSIGN & B[35], B};
    wire signed [73:0] p = a * b;
    assign DOUT = p[71:0];
endmodule

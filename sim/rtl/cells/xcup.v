// Models of cells of UltraScale+ that Yosys leaves as black boxes, in the modes that Yosys uses.

`define N2UQ_RAM_PARAMETERS  \
    parameter DOA_REG = 1, DOB_REG = 1, READ_WIDTH_A = 0, READ_WIDTH_B = 0, WRITE_WIDTH_A = 0;  \
    parameter WRITE_WIDTH_B = 0, WRITE_MODE_A = "NO_CHANGE", WRITE_MODE_B = "NO_CHANGE";  \
    parameter [35:0] INIT_A = 0, INIT_B = 0, SRVAL_A = 0, SRVAL_B = 0;
`define N2UQ_RAM_SETTINGS  \
    .DOA_REG(DOA_REG), .DOB_REG(DOB_REG), .READ_WIDTH_A(READ_WIDTH_A), .READ_WIDTH_B(READ_WIDTH_B),  \
    .WRITE_WIDTH_A(WRITE_WIDTH_A), .WRITE_WIDTH_B(WRITE_WIDTH_B), .WRITE_MODE_A(WRITE_MODE_A),  \
    .WRITE_MODE_B(WRITE_MODE_B), .INIT_A(INIT_A), .INIT_B(INIT_B), .SRVAL_A(SRVAL_A), .SRVAL_B(SRVAL_B)

// The contents of a RAM, in parameters of 256 bits, those of a RAMB36E2 twice as many; and the same,
// the last first.
`define N2UQ_INIT_18  \
    parameter [255:0]  \
    INIT_00 = 0, INIT_01 = 0, INIT_02 = 0, INIT_03 = 0, INIT_04 = 0, INIT_05 = 0,  \
    INIT_06 = 0, INIT_07 = 0, INIT_08 = 0, INIT_09 = 0, INIT_0A = 0, INIT_0B = 0,  \
    INIT_0C = 0, INIT_0D = 0, INIT_0E = 0, INIT_0F = 0, INIT_10 = 0, INIT_11 = 0,  \
    INIT_12 = 0, INIT_13 = 0, INIT_14 = 0, INIT_15 = 0, INIT_16 = 0, INIT_17 = 0,  \
    INIT_18 = 0, INIT_19 = 0, INIT_1A = 0, INIT_1B = 0, INIT_1C = 0, INIT_1D = 0,  \
    INIT_1E = 0, INIT_1F = 0, INIT_20 = 0, INIT_21 = 0, INIT_22 = 0, INIT_23 = 0,  \
    INIT_24 = 0, INIT_25 = 0, INIT_26 = 0, INIT_27 = 0, INIT_28 = 0, INIT_29 = 0,  \
    INIT_2A = 0, INIT_2B = 0, INIT_2C = 0, INIT_2D = 0, INIT_2E = 0, INIT_2F = 0,  \
    INIT_30 = 0, INIT_31 = 0, INIT_32 = 0, INIT_33 = 0, INIT_34 = 0, INIT_35 = 0,  \
    INIT_36 = 0, INIT_37 = 0, INIT_38 = 0, INIT_39 = 0, INIT_3A = 0, INIT_3B = 0,  \
    INIT_3C = 0, INIT_3D = 0, INIT_3E = 0, INIT_3F = 0;  \
    parameter [255:0]  \
    INITP_00 = 0, INITP_01 = 0, INITP_02 = 0, INITP_03 = 0, INITP_04 = 0, INITP_05 = 0,  \
    INITP_06 = 0, INITP_07 = 0;
`define N2UQ_INIT_36  \
    parameter [255:0]  \
    INIT_40 = 0, INIT_41 = 0, INIT_42 = 0, INIT_43 = 0, INIT_44 = 0, INIT_45 = 0,  \
    INIT_46 = 0, INIT_47 = 0, INIT_48 = 0, INIT_49 = 0, INIT_4A = 0, INIT_4B = 0,  \
    INIT_4C = 0, INIT_4D = 0, INIT_4E = 0, INIT_4F = 0, INIT_50 = 0, INIT_51 = 0,  \
    INIT_52 = 0, INIT_53 = 0, INIT_54 = 0, INIT_55 = 0, INIT_56 = 0, INIT_57 = 0,  \
    INIT_58 = 0, INIT_59 = 0, INIT_5A = 0, INIT_5B = 0, INIT_5C = 0, INIT_5D = 0,  \
    INIT_5E = 0, INIT_5F = 0, INIT_60 = 0, INIT_61 = 0, INIT_62 = 0, INIT_63 = 0,  \
    INIT_64 = 0, INIT_65 = 0, INIT_66 = 0, INIT_67 = 0, INIT_68 = 0, INIT_69 = 0,  \
    INIT_6A = 0, INIT_6B = 0, INIT_6C = 0, INIT_6D = 0, INIT_6E = 0, INIT_6F = 0,  \
    INIT_70 = 0, INIT_71 = 0, INIT_72 = 0, INIT_73 = 0, INIT_74 = 0, INIT_75 = 0,  \
    INIT_76 = 0, INIT_77 = 0, INIT_78 = 0, INIT_79 = 0, INIT_7A = 0, INIT_7B = 0,  \
    INIT_7C = 0, INIT_7D = 0, INIT_7E = 0, INIT_7F = 0;  \
    parameter [255:0]  \
    INITP_08 = 0, INITP_09 = 0, INITP_0A = 0, INITP_0B = 0, INITP_0C = 0, INITP_0D = 0,  \
    INITP_0E = 0, INITP_0F = 0;
`define N2UQ_DATA_18  \
    INIT_3F, INIT_3E, INIT_3D, INIT_3C, INIT_3B, INIT_3A, INIT_39, INIT_38, INIT_37, INIT_36,  \
    INIT_35, INIT_34, INIT_33, INIT_32, INIT_31, INIT_30, INIT_2F, INIT_2E, INIT_2D, INIT_2C,  \
    INIT_2B, INIT_2A, INIT_29, INIT_28, INIT_27, INIT_26, INIT_25, INIT_24, INIT_23, INIT_22,  \
    INIT_21, INIT_20, INIT_1F, INIT_1E, INIT_1D, INIT_1C, INIT_1B, INIT_1A, INIT_19, INIT_18,  \
    INIT_17, INIT_16, INIT_15, INIT_14, INIT_13, INIT_12, INIT_11, INIT_10, INIT_0F, INIT_0E,  \
    INIT_0D, INIT_0C, INIT_0B, INIT_0A, INIT_09, INIT_08, INIT_07, INIT_06, INIT_05, INIT_04,  \
    INIT_03, INIT_02, INIT_01, INIT_00
`define N2UQ_DATA_36  \
    INIT_7F, INIT_7E, INIT_7D, INIT_7C, INIT_7B, INIT_7A, INIT_79, INIT_78, INIT_77, INIT_76,  \
    INIT_75, INIT_74, INIT_73, INIT_72, INIT_71, INIT_70, INIT_6F, INIT_6E, INIT_6D, INIT_6C,  \
    INIT_6B, INIT_6A, INIT_69, INIT_68, INIT_67, INIT_66, INIT_65, INIT_64, INIT_63, INIT_62,  \
    INIT_61, INIT_60, INIT_5F, INIT_5E, INIT_5D, INIT_5C, INIT_5B, INIT_5A, INIT_59, INIT_58,  \
    INIT_57, INIT_56, INIT_55, INIT_54, INIT_53, INIT_52, INIT_51, INIT_50, INIT_4F, INIT_4E,  \
    INIT_4D, INIT_4C, INIT_4B, INIT_4A, INIT_49, INIT_48, INIT_47, INIT_46, INIT_45, INIT_44,  \
    INIT_43, INIT_42, INIT_41, INIT_40
`define N2UQ_PARITY_18  \
    INITP_07, INITP_06, INITP_05, INITP_04, INITP_03, INITP_02, INITP_01, INITP_00
`define N2UQ_PARITY_36  \
    INITP_0F, INITP_0E, INITP_0D, INITP_0C, INITP_0B, INITP_0A, INITP_09, INITP_08

// A port of each side, or, with twice the width, one that reads through the pins of A and B, and one
// that writes so: PINS are the bytes of data that the pins of one side carry.
module n2uq_ultrascale_ram #(
    parameter BYTES = 2048, PINS = 2, parameter [8 * BYTES - 1:0] INIT = 0,
    parameter [BYTES - 1:0] PARITY = 0,
    parameter DOA_REG = 1, DOB_REG = 1, READ_WIDTH_A = 0, READ_WIDTH_B = 0, WRITE_WIDTH_A = 0,
    parameter WRITE_WIDTH_B = 0, WRITE_MODE_A = "NO_CHANGE", WRITE_MODE_B = "NO_CHANGE",
    parameter [35:0] INIT_A = 0, INIT_B = 0, SRVAL_A = 0, SRVAL_B = 0
) (
    input [1:0] clk, en, rst, input [4 * PINS - 1:0] we, input [2 * $clog2(8 * BYTES) - 1:0] addr,
    input [16 * PINS - 1:0] di, input [2 * PINS - 1:0] dip,
    output [16 * PINS - 1:0] dout, output [2 * PINS - 1:0] doutp
);
    localparam LANES = 2 * PINS, SIDE = 9 * PINS, WIDE = 2 * SIDE;
    localparam WIDTH_A = READ_WIDTH_A ? READ_WIDTH_A : WRITE_WIDTH_A ? WRITE_WIDTH_A : 9;
    localparam WIDTH_B = READ_WIDTH_B ? READ_WIDTH_B : WRITE_WIDTH_B ? WRITE_WIDTH_B : 9;

    initial begin
        if (DOA_REG || DOB_REG) $fatal(1, "%m: no model of output registers");
        if (READ_WIDTH_A && WRITE_WIDTH_A && READ_WIDTH_A != WRITE_WIDTH_A
            || READ_WIDTH_B && WRITE_WIDTH_B && READ_WIDTH_B != WRITE_WIDTH_B)
            $fatal(1, "%m: no model of a port that writes in another width than it reads");
        if (WRITE_WIDTH_A > SIDE || READ_WIDTH_B > SIDE)
            $fatal(1, "%m: no model of such wide ports");
        if (SIDE < WIDTH_A && READ_WIDTH_B != 0 || SIDE < WIDTH_B && WRITE_WIDTH_A != 0)
            $fatal(1, "%m: no model of a third port");
    end

    // As the bytes of the RAM: data of the byte, and its ninth bit above.
    function [SIDE - 1:0] joined(input [8 * PINS - 1:0] low, input [PINS - 1:0] high);
        integer k;
        for (k = 0; k < PINS; k = k + 1) joined[9 * k +: 9] = {high[k], low[8 * k +: 8]};
    endfunction
    // INIT and SRVAL have the ninth bits of a port above its data, if it has any.
    function [SIDE - 1:0] valued(input [35:0] value, input integer width);
        valued = width == SIDE || width > SIDE ? joined(value[8 * PINS - 1:0], PINS'(value >> 8 * PINS))
            : width == 18 ? {value[17], value[15:8], value[16], value[7:0]} : SIDE'(value);
    endfunction

    wire [SIDE - 1:0] in_a = joined(di[0 +: 8 * PINS], dip[0 +: PINS]);
    wire [SIDE - 1:0] in_b = joined(di[8 * PINS +: 8 * PINS], dip[PINS +: PINS]);
    wire [WIDE - 1:0] write_b = WIDTH_B > SIDE ? {in_b, in_a} : WIDE'(in_b);
    wire [WIDE - 1:0] qa, qb;
    wire [WIDE - 1:0] out = {WIDTH_A > SIDE ? qa[SIDE +: SIDE] : qb[0 +: SIDE], qa[0 +: SIDE]};
    genvar k;
    generate for (k = 0; k < LANES; k = k + 1) begin : pin
        assign {doutp[k], dout[8 * k +: 8]} = out[9 * k +: 9];
    end endgenerate

    // The wide port's value lies in the parameters of both sides.
    localparam [WIDE - 1:0] START_A = {WIDTH_A > SIDE ? valued(INIT_B, SIDE) : SIDE'(0),
                                       valued(INIT_A, WIDTH_A)};
    localparam [WIDE - 1:0] RESET_A = {WIDTH_A > SIDE ? valued(SRVAL_B, SIDE) : SIDE'(0),
                                       valued(SRVAL_A, WIDTH_A)};
    n2uq_block_ram #(
        .BYTES(BYTES), .LANES(LANES), .TOTAL(8 * BYTES), .INIT(INIT), .PARITY(PARITY), .STRIDE(8),
        .BYTE(8), .WIDTH_A(WIDTH_A), .WIDTH_B(WIDTH_B), .RESET_ENABLED(1),
        .MODE_A(WRITE_MODE_A == "WRITE_FIRST" ? 1 : WRITE_MODE_A == "READ_FIRST" ? 2 : 0),
        .MODE_B(WRITE_MODE_B == "WRITE_FIRST" ? 1 : WRITE_MODE_B == "READ_FIRST" ? 2 : 0),
        .START({WIDE'(valued(INIT_B, WIDTH_B)), START_A}),
        .RESET({WIDE'(valued(SRVAL_B, WIDTH_B)), RESET_A})
    ) ram (
        .clk(clk), .en(en), .rst(rst), .we({WRITE_WIDTH_B ? we[LANES +: LANES] : LANES'(0),
                                           WRITE_WIDTH_A ? we[0 +: LANES] : LANES'(0)}),
        .addr(addr), .d({write_b, WIDE'(in_a)}), .q({qb, qa})
    );
endmodule

module RAMB18E2(
    input [13:0] ADDRARDADDR, ADDRBWRADDR, input ADDRENA, ADDRENB, CLKARDCLK, CLKBWRCLK,
    input [15:0] DINADIN, DINBDIN, input [1:0] DINPADINP, DINPBDINP, input ENARDEN, ENBWREN,
    input REGCEAREGCE, REGCEB, RSTRAMARSTRAM, RSTRAMB, RSTREGARSTREG, RSTREGB, SLEEP,
    input [1:0] WEA, input [3:0] WEBWE,
    output [15:0] DOUTADOUT, DOUTBDOUT, output [1:0] DOUTPADOUTP, DOUTPBDOUTP
);
    `N2UQ_RAM_PARAMETERS
    `N2UQ_INIT_18
    n2uq_ultrascale_ram #(
        .BYTES(2048), .PINS(2), .INIT({`N2UQ_DATA_18}), .PARITY({`N2UQ_PARITY_18}),
        `N2UQ_RAM_SETTINGS
    ) ram (
        .clk({CLKBWRCLK, CLKARDCLK}), .en({ENBWREN && ADDRENB, ENARDEN && ADDRENA}),
        .rst({RSTRAMB, RSTRAMARSTRAM}),
        .we({WEBWE, 4'(WEA)}), .addr({ADDRBWRADDR, ADDRARDADDR}),
        .di({DINBDIN, DINADIN}), .dip({DINPBDINP, DINPADINP}), .dout({DOUTBDOUT, DOUTADOUT}),
        .doutp({DOUTPBDOUTP, DOUTPADOUTP})
    );
endmodule

module RAMB36E2(
    input [14:0] ADDRARDADDR, ADDRBWRADDR, input ADDRENA, ADDRENB, CLKARDCLK, CLKBWRCLK,
    input [31:0] DINADIN, DINBDIN, input [3:0] DINPADINP, DINPBDINP, input ENARDEN, ENBWREN,
    input REGCEAREGCE, REGCEB, RSTRAMARSTRAM, RSTRAMB, RSTREGARSTREG, RSTREGB, SLEEP,
    input [3:0] WEA, input [7:0] WEBWE,
    output [31:0] DOUTADOUT, DOUTBDOUT, output [3:0] DOUTPADOUTP, DOUTPBDOUTP
);
    `N2UQ_RAM_PARAMETERS
    `N2UQ_INIT_18
    `N2UQ_INIT_36
    n2uq_ultrascale_ram #(
        .BYTES(4096), .PINS(4), .INIT({`N2UQ_DATA_36, `N2UQ_DATA_18}),
        .PARITY({`N2UQ_PARITY_36, `N2UQ_PARITY_18}),
        `N2UQ_RAM_SETTINGS
    ) ram (
        .clk({CLKBWRCLK, CLKARDCLK}), .en({ENBWREN && ADDRENB, ENARDEN && ADDRENA}),
        .rst({RSTRAMB, RSTRAMARSTRAM}),
        .we({WEBWE, 8'(WEA)}), .addr({ADDRBWRADDR, ADDRARDADDR}),
        .di({DINBDIN, DINADIN}), .dip({DINPBDINP, DINPADINP}), .dout({DOUTBDOUT, DOUTADOUT}),
        .doutp({DOUTPBDOUTP, DOUTPADOUTP})
    );
endmodule

// A multiplier without registers.
module DSP48E2(
    input [29:0] A, ACIN, input [17:0] B, BCIN, input [47:0] C, PCIN, input [26:0] D,
    input [3:0] ALUMODE, input [8:0] OPMODE, input [4:0] INMODE, input [2:0] CARRYINSEL, input CARRYIN,
    input CLK, output [47:0] P
);
    parameter ACASCREG = 1, ADREG = 1, ALUMODEREG = 1, AREG = 1, BCASCREG = 1, BREG = 1, CREG = 1;
    parameter CARRYINREG = 1, CARRYINSELREG = 1, DREG = 1, INMODEREG = 1, MREG = 1, OPMODEREG = 1;
    parameter PREG = 1, A_INPUT = "DIRECT", B_INPUT = "DIRECT", AMULTSEL = "A", BMULTSEL = "B";
    parameter USE_MULT = "MULTIPLY", USE_SIMD = "ONE48";

    initial begin
        if (ACASCREG || ADREG || ALUMODEREG || AREG || BCASCREG || BREG || CREG || CARRYINREG || DREG
            || CARRYINSELREG || INMODEREG || MREG || OPMODEREG || PREG)
            $fatal(1, "%m: no model of registers");
        if (A_INPUT != "DIRECT" || B_INPUT != "DIRECT" || AMULTSEL != "A" || BMULTSEL != "B"
            || USE_MULT != "MULTIPLY" || USE_SIMD != "ONE48")
            $fatal(1, "%m: no model of anything but A times B");
    end
    always_comb if ({OPMODE, ALUMODE, INMODE, CARRYINSEL, CARRYIN} != {9'd5, 13'd0})
        $fatal(1, "%m: no model of anything but A times B");
    assign P = 48'($signed(A[26:0]) * $signed(45'($signed(B))));
endmodule

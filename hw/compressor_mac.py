"""A PE of odd weights that change while it runs, as a compressor tree of its product bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib.wiring import In, Out

from .compressor import ANOTHER, BELOW, Chain, Tree, compressor_tree, product_columns
from .stream import beats
from .verilog import Bit, Text, Written, joined, row

__all__ = ["CHAIN", "PRIMITIVES", "CompressorMac", "compressor_latency", "compressor_offset",
           "compressor_tree_of"]

LEVELS_PER_STAGE = 2  # chains between registers
WORD = 32             # bits of a register
PRIMITIVES = "N2UQ_XILINX"  # the macro that chooses LUT6_2 and CARRY4 in the place of operators
# Values of a function of a term's two bits, at the first's value and twice the second's.
ALIKE, UNLIKE, FIRST, NEITHER = 0b1001, 0b0110, 0b1010, 0b0000
AND_NOT, OR = 0b0010, 0b1110  # of the first and the complement of the second; of both

CHAIN = """\
// s + 2^W·co = sum over positions i of 2^i·(x + y), or of 2^i·((x ^ y ^ z) + q) where WIDE; and ci.
// x is ONE of g and k, y is TWO of b and n, but where THREE y is b and z is n; m is the majority
// of x, y and z, and q that of the position below where OWN.
module @NAME@ #(parameter W = 1, parameter [4*W-1:0] ONE = 0, TWO = 0,
    parameter [W-1:0] THREE = 0, WIDE = 0, OWN = 0)(
  input [W-1:0] g, k, b, n, q, input ci, output [W-1:0] s, m, output co);
  genvar i;
`ifdef @MACRO@
  function [63:0] table_of(input [3:0] one, two, input three, wide);
    integer j;
    reg x, y, z;
    for (j = 0; j < 32; j = j + 1) begin
      x = one[j % 4];
      y = three ? j / 4 % 2 : two[j / 4 % 4];
      z = three & j / 8 % 2;
      table_of[j] = wide ? (x & y) | (x & z) | (y & z) : x;
      table_of[32 + j] = x ^ y ^ z ^ (wide & j / 16 % 2);
    end
  endfunction
  localparam N = (W + 3) / 4;
  wire [4*N:0] carry;
  wire [4*N-1:0] select, other, sum;
  assign carry[0] = ci;
  assign s = sum[W-1:0];
  assign co = carry[W];
  generate
    for (i = 0; i < W; i = i + 1) begin : position
      wire low = OWN[i] ? m[i > 0 ? i - 1 : 0] : q[i];
      LUT6_2 #(.INIT(table_of(ONE[4*i +: 4], TWO[4*i +: 4], THREE[i], WIDE[i]))) lut (
        .I0(g[i]), .I1(k[i]), .I2(b[i]), .I3(n[i]), .I4(low), .I5(1'b1),
        .O5(m[i]), .O6(select[i]));
      assign other[i] = WIDE[i] ? low : m[i];
    end
    for (i = W; i < 4 * N; i = i + 1) begin : beyond
      assign select[i] = 1'b0;
      assign other[i] = 1'b0;
    end
    for (i = 0; i < N; i = i + 1) begin : four
      wire [3:0] up;
      CARRY4 carry4 (.CO(up), .O(sum[4*i +: 4]), .CI(i ? carry[4*i] : 1'b0),
        .CYINIT(i ? 1'b0 : ci), .DI(other[4*i +: 4]), .S(select[4*i +: 4]));
      assign carry[4*i+1 +: 4] = up;
    end
  endgenerate
`else
  wire [W-1:0] x, y;
  wire [W-1:0] z = THREE & n;
  generate
    for (i = 0; i < W; i = i + 1) begin : position
      wire [3:0] one = ONE[4*i +: 4], two = TWO[4*i +: 4];
      assign x[i] = one[{k[i], g[i]}];
      assign y[i] = THREE[i] ? b[i] : two[{n[i], b[i]}];
    end
  endgenerate
  wire [W-1:0] majority = (x & y) | (x & z) | (y & z);
  wire [W:0] above = {majority, 1'b0};
  wire [W-1:0] low = (OWN & above[W-1:0]) | (~OWN & q);
  wire [W-1:0] first = x ^ (WIDE & (y ^ z)), second = (WIDE & low) | (~WIDE & y);
  assign m = (WIDE & majority) | (~WIDE & x);
  assign {co, s} = {1'b0, first} + {1'b0, second} + {{W{1'b0}}, ci};
`endif
endmodule
"""


def compressor_tree_of(simd: int, code_bits: int, activation_bits: int) -> Tree:
    """The tree of a `CompressorMac`; found once."""
    return compressor_tree(*product_columns(simd, code_bits, activation_bits))


def compressor_latency(simd: int, code_bits: int, activation_bits: int) -> int:
    """Cycles of a `CompressorMac` from its beat to its accumulator.

    ``⌈levels / LEVELS_PER_STAGE⌉ + 1`` with the levels of its `compressor_tree_of`.
    """
    tree = compressor_tree_of(simd, code_bits, activation_bits)
    return -(-tree.levels // LEVELS_PER_STAGE) + 1


def compressor_offset(weights: np.ndarray, code_bits: int, activation: Shape) -> np.ndarray:
    """What a `CompressorMac` adds to each output, int64 [N]; `weights` are odd, [N, K].

    Where a bit of a weight's code is 0, ``~a`` is in the place of ``-a``: ``2^A - 1`` more.  The
    highest bit of a signed activation is complemented: that is ``2^(A - 1)`` more in any case.
    """
    w, most = weights.astype(np.int64), 2**code_bits - 1
    ones, zeros = (2**(activation.width - 1) - np.arange(2) if activation.signed
                   else (0, 2**activation.width - 1))
    return ((most + w) // 2 * ones + (most - w) // 2 * zeros).sum(axis=1)


class CompressorMac(Written):
    """One PE: the dot product of SIMD odd weights and activations, accumulated over beats.

    A weight is ``2k - (2^B - 1)`` with a code k of B bits, each of which is the sign of ``±2^b·a``:
    a product bit is 1 where the bit of the code and that of the activation are alike.  A
    `compressor_tree_of` chains adds these up; each LUT of a chain makes two of them, or one beside
    two bits of the tree.  The accumulator is one more row of the last chain.

    Latency `compressor_latency` cycles from `a` and `codes` to `acc`; `valid` and `first` come a
    cycle before it.  One beat per cycle.

    Parameters
    ----------
    start: what a sum begins with.
    acc: holds the whole sum, `compressor_offset` and `start` included; what is partial may wrap
        around.

    Members
    -------
    enable: everything holds while low.
    a, codes: one beat of SIMD activations and of weight codes.
    valid, first: there is a beat at the accumulator; it begins a new sum.
    acc: the sum and `compressor_offset`; exact once all beats of a fold have passed.
    """

    def __init__(self, *, simd: int, code_bits: int, activation: Shape, acc: Shape,
                 start: int = 0) -> None:
        self.simd, self.code_bits, self.activation, self.start = simd, code_bits, activation, start
        self.tree = compressor_tree_of(simd, code_bits, activation.width)
        self.width = Shape.cast(acc).width
        super().__init__({
            "enable": In(1), "a": In(beats(activation, simd)),
            "codes": In(beats(Shape(code_bits), simd)), "valid": In(1), "first": In(1),
            "acc": Out(acc)})

    @property
    def cells(self) -> tuple[int, int]:
        """LUTs of two outputs and flip-flops; Yosys takes one or two LUTs more for enables."""
        writer = _Writer(self, "pe")
        writer.text()
        return self.tree.luts + self.width, writer.registers + self.width

    def verilog(self, name: str) -> str:
        """See `Written`; with a module for the chains behind it."""
        return _Writer(self, name).text()


class _Writer:
    """The bits of a tree by name, and the module in which they are."""

    def __init__(self, mac: CompressorMac, name: str) -> None:
        self.mac, self.chain = mac, f"{name}_chain"
        self.module = Text(mac, name, ("acc",))
        self.gates, self.plain = self._products(), defaultdict[int, list[Bit]](list)
        self.now: dict[Bit, Bit] = {}  # where a bit is after registers
        self.registers = 0  # bits of them

    def _products(self) -> dict[int, list[tuple[Bit, Bit, int]]]:
        """The bits of each product and the function of them, by column."""
        mac, columns = self.mac, defaultdict[int, list[tuple[Bit, Bit, int]]](list)
        width, bits = mac.activation.width, mac.code_bits
        for lane in range(mac.simd):
            for d in range(bits):
                for i in range(width):
                    turned = mac.activation.signed and i == width - 1
                    columns[i + d].append((("a", lane * width + i), ("codes", lane * bits + d),
                                           UNLIKE if turned else ALIKE))
        return columns

    def text(self) -> str:
        """The module, and that of its chains."""
        levels, tree = LEVELS_PER_STAGE, self.mac.tree
        stages = -(-tree.levels // levels)
        chains = defaultdict[int, list[Chain]](list)
        for chain in tree.chains:
            chains[chain.level].append(chain)
        for stage in range(stages):
            for level in range(stage * levels + 1, (stage + 1) * levels + 1):
                made = defaultdict[int, list[Bit]](list)
                for n, chain in enumerate(chains[level]):
                    self._add(f"level{level}_{n}", chain, made)
                for column, bits in made.items():
                    self.plain[column] += bits
            self._register(stage)
        self._accumulate()
        return "\n".join([str(self.module), CHAIN.replace("@NAME@", self.chain).replace(
            "@MACRO@", PRIMITIVES)])

    def _add(self, name: str, chain: Chain, made: dict[int, list[Bit]]) -> None:
        """An instance of a chain, and the bits that it makes."""
        carry = self.plain[chain.column].pop(0) if chain.carry else None
        cells = []
        for i, cell in enumerate(chain.cells):
            gates, plain = self.gates[chain.column + i], self.plain[chain.column + i]
            terms: list[tuple[str, str, int]] = [
                (self._at(a), self._at(k), function)
                for a, k, function in (gates.pop(0) for _ in range(cell.gates))]
            terms += [(self._at(plain.pop(0)), "1'h0", FIRST) for _ in range(cell.plain)]
            cells.append((terms, cell.more, self._at(plain.pop(0)) if cell.more == ANOTHER
                          else "1'h0"))
        words = self._instance(name, cells, self._at(carry) if carry else "1'h0")
        for what, i, column in chain.gives():
            made[column].append(words[what][i if what != "carry" else 0])

    def _at(self, bit: Bit) -> str:
        word, k = self.now.get(bit, bit)
        return f"{word}[{k}]"

    def _instance(self, name: str, cells: Sequence[tuple[list[tuple[str, str, int]], str, str]],
                  carry: str) -> dict[str, list[Bit]]:
        """A chain of cells: terms, what is added beside them, and another bit if it is one."""
        ports: dict[str, list[str]] = {port: [] for port in "gkbnq"}
        masks = dict.fromkeys(("ONE", "TWO", "THREE", "WIDE", "OWN"), 0)
        for i, (terms, more, other) in enumerate(cells):
            three, none = len(terms) == 3, ("1'h0", "1'h0", NEITHER)
            (g, k, one), (b, n, two) = (*terms, none, none)[:2]
            for port, bit in zip("gkbnq", (g, k, b, terms[2][0] if three else n, other),
                                 strict=True):
                ports[port].append(bit)
            masks["ONE"] |= one << 4 * i
            masks["TWO"] |= two << 4 * i
            masks["THREE"] |= three << i
            masks["WIDE"] |= (three or bool(more)) << i
            masks["OWN"] |= (more == BELOW) << i
        width = len(cells)
        self.module.instance(
            self.chain, name, {"W": str(width), **{
                mask: f"{width * (4 if mask in ('ONE', 'TWO') else 1)}'h{value:x}"
                for mask, value in masks.items()}},
            {**{port: row(bits) for port, bits in ports.items()}, "ci": carry},
            {"s": width, "m": width, "co": 1})
        return {what: [(f"{name}_{port}", k) for k in range(n)]
                for what, port, n in (("sum", "s", width), ("majority", "m", width),
                                      ("carry", "co", 1))}

    def _register(self, stage: int) -> None:
        """All bits that are still to be added, a cycle later."""
        waiting = [bit for bits in self.plain.values() for bit in bits]
        for gates in self.gates.values():
            waiting += [bit for a, k, _ in gates for bit in (a, k)]
        waiting = sorted(set(waiting))
        self.registers += len(waiting)
        for n in range(0, len(waiting), WORD):
            word = waiting[n:n + WORD]
            self.now.update(zip(word, self.module.register(
                f"stage{stage}_{n // WORD}",
                joined([self.now.get(bit, bit) for bit in word]), len(word)), strict=True))

    def _accumulate(self) -> None:
        """The last chain: two bits of the tree, and the sum so far or `start`, in each column."""
        cells = []
        for i in range(self.mac.width):
            plain = [self._at(bit) for bit in self.plain[i]]
            begins = self.mac.start >> i & 1
            cells.append(([(f"acc[{i}]", "first", OR if begins else AND_NOT),
                           *((bit, "1'h0", FIRST) for bit in plain[:2])],
                          BELOW if i else ANOTHER, (plain[2:] or ["1'h0"])[0]))
        words = self._instance("total", cells, "1'h0")
        self.module.clocked("acc", f"valid ? {joined(words['sum'])} : acc", reset=False)

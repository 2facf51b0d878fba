"""Units that write their Verilog themselves: thousands of adders, which take Amaranth minutes.

They hold no more than words made of others' bits and registers behind one enable; what Yosys makes
of them is what it makes of Amaranth's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from amaranth.hdl import Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["Bit", "Text", "Written", "joined", "lookup", "row"]

Bit = tuple[str, int]  # of a word, by its name


class Text:
    """A Verilog module as it is written, of words that have each name once.

    Its registers take their next value at ``posedge clk`` while `enable` is high, and are 0 at
    power-up.
    """

    def __init__(self, unit: wiring.Component, name: str, registers: Sequence[str]) -> None:
        """The ports of `unit`, `registers` of them registers, and clk and rst."""
        self._lines = list[str]()
        ports = ["input clk", "input rst"]
        for path, member, _ in unit.signature.flatten(unit):
            port = "__".join(map(str, path))
            kind = "reg " if port in registers else ""
            width = 0 if isinstance(member.shape, int) else Shape.cast(member.shape).width
            ports.append(f"{'input' if member.flow == In else 'output'} {kind}"
                         f"{_range(width)}{port}")
        self._lines += [f"module {name}(\n  " + ",\n  ".join(ports) + ");",
                        *(f"  initial {port} = 0;" for port in registers)]

    def assign(self, port: str, value: str) -> None:
        """Let an output be `value`."""
        self._lines.append(f"  assign {port} = {value};")

    def wire(self, name: str, value: str, width: int = 0) -> list[Bit]:
        """The bits of a word, or one bit that goes by its name, that is `value`, as wide."""
        self._lines.append(f"  wire {_range(width)}{name} = {value};")
        return [(name, k) for k in range(width)]

    def register(self, name: str, value: str, width: int = 0, *, reset: bool = False) -> list[Bit]:
        """The same a cycle later; with `reset` it becomes 0 while rst is high."""
        self._lines += [f"  reg {_range(width)}{name}; initial {name} = 0;"]
        self.clocked(name, value, reset=reset)
        return [(name, k) for k in range(width)]

    def clocked(self, name: str, value: str, *, reset: bool) -> None:
        """Let a register that is declared, such as a port, become `value`."""
        begin = f"if (rst) {name} <= 0;\n    else " if reset else ""
        self._lines.append(f"  always @(posedge clk)\n    {begin}if (enable) {name} <= {value};")

    def instance(self, module: str, name: str, parameters: Mapping[str, str],
                 inputs: Mapping[str, str], outputs: Mapping[str, int]) -> None:
        """A module; each of its `outputs`, so many bits, becomes a word ``NAME_OUTPUT``."""
        self._lines += [f"  wire {_range(width)}{name}_{port};" for port, width in outputs.items()]
        values = ", ".join(f".{key}({value})" for key, value in parameters.items())
        ports = ",\n    ".join([*(f".{port}({value})" for port, value in inputs.items()),
                                *(f".{port}({name}_{port})" for port in outputs)])
        self._lines.append(f"  {module} #({values}) {name} (\n    {ports});")

    def __str__(self) -> str:
        return "\n".join([*self._lines, "endmodule\n"])


class Written(wiring.Component):
    """A component whose module is a `Text`: a `Library` has its Verilog, and no RTLIL.

    Amaranth cannot elaborate it.
    """

    @abstractmethod
    def verilog(self, name: str) -> str:
        """Its module, called `name`."""


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width else ""


def row(values: Iterable[str]) -> str:
    """The word of `values`, lowest first."""
    return f"{{ {', '.join([*values][::-1])} }}"


def joined(bits: Sequence[Bit]) -> str:
    """The word of `bits`, lowest first; neighbours in the word that they are of stay together."""
    parts = []
    for _, run in groupby(enumerate(bits), key=lambda at: (at[1][0], at[1][1] - at[0])):
        (_, (word, first)), *rest = run
        parts.append(f"{word}[{first + len(rest)}:{first}]" if rest else f"{word}[{first}]")
    return parts[0] if len(parts) == 1 else row(parts)


def lookup(table: int, bits: Sequence[str]) -> tuple[str, int]:
    """A word, and its width, whose lowest bit is that of the number `table` which `bits` say."""
    size = 1 << len(bits)
    return f"{size}'h{table:x} >> {row(bits)}", size

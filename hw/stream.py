"""What all units share: beats of equal elements, and the signature of a unit.

A stream carries the elements of a tensor [H, W, C] in row-major order, `lanes` per beat, lane 0 in
the low bits (`amaranth.lib.stream`: a beat moves when valid and ready are both high).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Format, Module, Mux, Shape, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..errors import N2uqError
from ..ir import Edge, bits_for

__all__ = ["Unit", "beats", "divides", "element", "let", "shape_for", "tree", "wraps"]


def shape_for(lo: int, hi: int) -> Shape:
    """The narrowest hardware shape for integers in `lo`..`hi`."""
    width, signed = bits_for(lo, hi)
    return Shape(width, signed)


def element(edge: Edge) -> Shape:
    """The hardware shape of one element of an edge."""
    return Shape(edge.width, edge.signed)


class Beat(data.ArrayLayout):
    """An array that waveforms and Verilog show whole.

    A name for each lane would be most of the Verilog of a wide unit, and of the time to write it.
    """

    def format(self, value: Any, format_spec: str) -> Format:
        """As one number."""
        return Format(f"{{:{format_spec}}}", HdlValue.cast(value))


def beats(shape: Shape, lanes: int) -> data.ArrayLayout:
    """Payload layout of `lanes` elements per beat."""
    return Beat(shape, lanes)


def divides(what: str, lanes: int, of: str, total: int) -> int:
    """`total // lanes`, or N2uqError: "PE must divide the 64 output channels, not 12"."""
    if lanes < 1 or total % lanes:
        raise N2uqError(f"{what} must divide the {total} {of}, not {lanes}")
    return total // lanes


def wraps(m: Module, counter: Signal, length: int, advance: HdlValue) -> HdlValue:
    """Count 0..length-1 when `advance`; returns "at the last count"."""
    last = counter == length - 1
    with m.If(advance):
        m.d.sync += counter.eq(Mux(last, 0, counter + 1))
    return last


def let(beat: data.View[Any], lanes: Iterable[Any]) -> Any:
    """Let the lanes of `beat` be `lanes`: a statement for all of them.

    One for each would take Amaranth a time that grows with the square of their number.
    """
    shape = Shape.cast(beat.shape().elem_shape)

    def fit(lane: Any) -> HdlValue:
        value = HdlValue.cast(lane)
        more = max(shape.width - len(value), 0)
        top = value[-1] if value.shape().signed else Const(0, 1)
        return Cat(value[:shape.width], top.replicate(more))
    return beat.as_value().eq(Cat(fit(lane) for lane in lanes))


def tree(m: Module, name: str, values: Sequence[Any], join: Callable[[Any, Any], Any]) -> Any:
    """All `values` joined in pairs, and pairs of those: ``⌈log2(n)⌉`` levels of logic, no register.

    `join` takes and gives one value, or a view of several.  Each result is a signal of its own,
    ``<name>_<values left>_<k>``, for Amaranth writes an expression out at each of its uses: nested
    in each other, those that use a value twice would double the text with every level.
    """
    while len(values) > 1:
        joined = [join(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        signals = [Signal(each.shape(), name=f"{name}_{len(values)}_{k}")
                   for k, each in enumerate(joined)]
        m.d.comb += [signal.eq(each) for signal, each in zip(signals, joined, strict=True)]
        values = [*signals, *values[2 * len(signals):]]
    return values[0]


class Unit(wiring.Component):
    """One stream in, one stream out.

    Members
    -------
    i, o: streams of `beats(shape, lanes)`.
    """

    def __init__(self, i: data.ArrayLayout, o: data.ArrayLayout,
                 **more: wiring.Member) -> None:
        super().__init__({"i": In(stream.Signature(i)), "o": Out(stream.Signature(o)), **more})

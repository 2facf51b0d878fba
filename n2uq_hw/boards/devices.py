"""The boards: their pins, oscillators and devices."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import N2uqError

__all__ = ["BOARDS", "Device", "find_board"]


@dataclass(frozen=True)
class Device:
    """A board and what is on it.

    Pins are those of amaranth-boards 0.0.21 (BSD-2-Clause), named from the device's side.

    Members
    -------
    family: "ecp5", "ice40" or "gowin".
    place, pack: options of nextpnr and of the packer that name the device.
    mhz: of the oscillator, which clocks all.
    luts: LUT4 of the device.
    leds: pins, that of the lowest bit first; `leds_low` where low is on.
    high: a pin that has to stay high, "" if there is none.
    load: the command that loads a bitstream named `{}`.
    """

    name: str
    title: str
    family: str
    device: str
    place: tuple[str, ...]
    pack: tuple[str, ...]
    mhz: int
    luts: int
    clk: str
    rx: str
    tx: str
    leds: tuple[str, ...]
    load: str
    leds_low: bool = False
    high: str = ""

    @property
    def pins(self) -> dict[str, str]:
        """Pin by port of the top, a bit at a time."""
        single = {"clk": self.clk, "rx": self.rx, "tx": self.tx}
        return (single | {f"leds[{bit}]": pin for bit, pin in enumerate(self.leds)}
                | ({"high": self.high} if self.high else {}))


def _ulx3s(size: int, luts: int) -> Device:
    return Device(
        f"ulx3s-{size}f", f"ULX3S with {size}F", "ecp5", f"LFE5U-{size}F",
        (f"--{size}k", "--package", "CABGA381", "--speed", "6"), (), 25, luts, "G2", "M1", "L4",
        ("B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3"), "openFPGALoader -b ulx3s {}",
        high="L2")  # GPIO0 of the ESP32: low would have it wait for a program


_ALL = (
    *(_ulx3s(size, luts) for size, luts in ((12, 12_000), (25, 24_288), (45, 43_848),
                                            (85, 83_640))),
    # The LEDs 1 to 5 of the part of the board that can be broken off, in PMOD 2.
    Device("icebreaker", "iCEBreaker", "ice40", "iCE40UP5K", ("--up5k", "--package", "sg48"), (),
           12, 5280, "35", "6", "9", ("26", "27", "25", "23", "21"), "iceprog {}"),
    Device("tangnano9k", "Tang Nano 9K", "gowin", "GW1NR-LV9QN88PC6/I5",
           ("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"), ("-d", "GW1N-9C"),
           27, 8640, "52", "18", "17", ("10", "11", "13", "14", "15", "16"),
           "openFPGALoader -b tangnano9k {}", leds_low=True))

BOARDS = {device.name: device for device in _ALL}
BOARDS["ulx3s"] = BOARDS["ulx3s-85f"]


def find_board(name: str) -> Device:
    """The board of that name; raises N2uqError."""
    if name not in BOARDS:
        raise N2uqError(f"board must be one of {', '.join(sorted(BOARDS))}, not {name!r}")
    return BOARDS[name]

# amaranth: UnusedElaboratable=no
"""Verilog modules that are elaborated once and instantiated many times."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import wiring

from .verilog import Written

__all__ = ["Library", "inner", "instantiate"]


@contextmanager
def _garbage_waits() -> Iterator[None]:
    """Cyclic garbage is looked for a thousand times less often: of modules there is little."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1000 * thresholds[0], *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class Library:
    """Modules that are converted once and instantiated by name; passed as Amaranth's platform.

    `instantiate` hands components to it, and `rtlil()` returns the text of all of them.

    Members
    -------
    memories: each memory that wants a file, by module name: uint8 bits [depth, width], Verilog
        attributes, and whether it is written; complete after `rtlil()`, see `hw/memory.py`.
    written: the Verilog of components that write it, by module name; complete after `rtlil()`.
    """

    def __init__(self) -> None:
        self.memories: dict[str, tuple[np.ndarray, Mapping[str, str | int], bool]] = {}
        self.written: dict[str, str] = {}
        self._converting = ""
        self._texts: dict[str, str] = {}
        self._components: dict[str, wiring.Component] = {}

    def signature(self, name: str, make: Callable[[], wiring.Component]) -> wiring.Signature:
        """Ask for module `name`, made by `make` at the first call; equal names, equal modules."""
        if name not in self._components:
            self._components[name] = make()
        return self._components[name].signature

    def within(self, name: str) -> str:
        """A module name of the module's own that is being converted, by its `name` in there."""
        return f"{self._converting}.{name}"  # as Amaranth names submodules: no node has a dot

    def memory(self, name: str, bits: np.ndarray, attributes: Mapping[str, str | int], *,
               written: bool = False) -> str:
        """Keep memory `name` of the module that is being converted; returns its module name."""
        module = self.within(name)
        if module in self.memories:
            raise NameError(f"{module}: a memory of this name is there already")
        self.memories[module] = bits, attributes, written
        return module

    @_garbage_waits()
    def rtlil(self) -> dict[str, str]:
        """RTLIL text by module name, instances' modules included, but no `written` ones."""
        while waiting := self._components.keys() - self._texts.keys() - self.written.keys():
            self._converting = name = min(waiting)
            if isinstance(component := self._components[name], Written):
                self.written[name] = component.verilog(name)
                continue
            self._texts[name] = rtlil.convert(component, name=name, platform=self,
                                              emit_src=False)
        return dict(sorted(self._texts.items()))


def inner(name: str, platform: Any) -> str:
    """The module name of `name` inside the module that a Library is converting."""
    return platform.within(name) if isinstance(platform, Library) else name


def instantiate(m: Module, make: Callable[[], wiring.Component], name: str, module: str,
                platform: Any, *, clocked: bool = True, submodule: str = "", **inputs: HdlValue
                ) -> Any:
    """Add the submodule that `make` makes; returns its interface: an instance's for a Library.

    Of an instance the `inputs` are connected as they are, and the interface holds the other
    members.  A module without registers, not `clocked`, has no clock.  Without a Library (in
    Amaranth's own simulator) the component serves as it is.  Signals are named after `name`, and
    the submodule too unless it is named apart.
    """
    if not isinstance(platform, Library):
        m.submodules[submodule or name] = component = make()
        m.d.comb += [HdlValue.cast(getattr(component, member)).eq(value)
                     for member, value in inputs.items()]
        return component
    members = {member: of for member, of in platform.signature(module, make).members.items()
               if member not in inputs}
    signature = wiring.Signature(members)
    ports = signature.create(path=(name,))
    connections: dict[str, Any] = ({"i_clk": ClockSignal(), "i_rst": ResetSignal()} if clocked
                                   else {})
    for member, value in inputs.items():
        connections[f"i_{member}"] = value
    for path, member, value in signature.flatten(ports):
        flow = "i" if member.flow == wiring.In else "o"
        connections[f"{flow}_{'__'.join(map(str, path))}"] = HdlValue.cast(value)
    m.submodules[submodule or name] = Instance(module, **connections)
    return ports

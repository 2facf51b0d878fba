"""The folding for a rate or a budget, and the files that hold foldings."""

from __future__ import annotations

from dataclasses import asdict, fields
from math import ceil, inf
from pathlib import Path
from typing import Any

import yaml

from ..errors import N2uqError, check_range
from ..files import read_text, write_file
from ..hw.threshold import threshold_styles
from ..ir import Flatten, Graph, MatVec, Node, Threshold
from ..ir.folding import (
    PRODUCTS,
    UNROLLED,
    FifoFold,
    Fold,
    Folding,
    ThresholdFold,
    UnrolledFold,
    check,
    fifo_depths,
    fifo_names,
    fifos_key,
    fold_types,
    folds_of,
    lanes_in,
    lanes_out,
    reach,
    slowest_window,
    unfolded,
)
from ..ir.nodes import MAX_ELEMENTS
from ..progress import bars
from ..sim.timing.fifos import WORK, size_fifos
from .plan import Plan
from .problem import Problem

__all__ = ["choose", "fold", "folding_text", "load_folding", "save_folding", "sized", "solve",
           "unrolled"]


def fold(graph: Graph, *, cycles: int | None = None, fps: float | None = None,
         luts: int | None = None, unroll: int | None = None, lut: int | None = None,
         folding: str | Path | Folding | None = None, clock: float = 200.0, family: str = "xcup",
         search: bool = True, fifo_budget: float = 0.0, least_fifos: bool = False) -> Plan:
    """A folding of `graph` with sized FIFOs.

    Parameters
    ----------
    cycles: most cycles per image; the folding has the least estimated cost that keeps them.
    fps: least images per second at `clock`, at the least estimated cost.
    luts: most LUTs, those that are memory included; the folding has the best rate within them.
    unroll: put every MatVec in logic, with a register after so many levels (`unrolled`).
    folding: take this one, or that of a YAML file.
    lut: with `unroll`, inputs of the device's LUTs, 6 (the default) or 4.
    clock: in MHz.
    family: the device family of the estimates, xcup or ecp5.
    search: weigh MatVecs in logic, too; takes seconds.
    fifo_budget: allowed delay in percent, in exchange for shallower FIFOs.
    least_fifos: search for the smallest FIFOs however long it takes.

    Give one of the first five at most.  Without any, an image takes as many cycles as the slowest
    sliding window needs.  Raises N2uqError for options that exclude each other, for a goal that
    cannot be reached, and for a faulty file.
    """
    asked = {"fps": fps, "cycles": cycles, "luts": luts, "unroll": unroll, "folding": folding}
    named = [name if isinstance(value, dict) else f"{name} {value}"
             for name, value in asked.items() if value is not None]
    if len(named) > 1:
        raise N2uqError(f"{' and '.join(named)} exclude each other")
    for name, number, least, most, unit in (
            ("cycles", cycles, 1, 10**12, ""), ("fps", fps, 1e-6, 1e12, "images/s"),
            ("luts", luts, 1, 10**12, ""), ("unroll", unroll, 1, 1000, "levels"),
            ("clock", clock, 0.001, 100_000, "MHz"),
            ("fifo_budget", fifo_budget, 0, 1000, "percent")):
        if number is not None:
            check_range(name, number, least, most, unit)
    if unroll is None and lut is not None:
        raise N2uqError(f"lut must come with unroll, and is given without: {lut}")
    sizing = {"budget": fifo_budget / 100, "work": inf if least_fifos else WORK}
    if fps is not None:
        cycles = _cycles_for(graph, fps, clock)
    with bars() as progress:
        progress("fold", 0.0)
        if cycles is not None or luts is not None:
            return solve(Problem(graph, family, unrolls=search), cycles=cycles, max_luts=luts,
                         **sizing)
        if unroll is not None:
            chosen = unrolled(graph, unroll, 6 if lut is None else lut)
        elif isinstance(folding, str | Path):
            chosen = load_folding(Path(folding), graph)
        elif folding is not None:
            chosen = folding
            check(graph, chosen)
        else:
            chosen = choose(graph, family=family)
        return sized(graph, chosen, family, **sizing)


def _cycles_for(graph: Graph, fps: float, clock: float) -> int:
    """Cycles per image for so many images per second; raises N2uqError beyond what is reached."""
    cycles, (least, slowest) = int(clock * 1e6 / fps), reach(graph)
    if cycles < least:
        raise N2uqError(f"{slowest}: takes {least:,} cycles per image at its fastest, "
                        f"{clock * 1e6 / least:,.1f} images/s at {clock:g} MHz; {fps:g} "
                        "images/s cannot be reached")
    return cycles


def solve(problem: Problem, *, cycles: int | None = None, max_luts: int | None = None,
          budget: float = 0.0, work: float = WORK) -> Plan:
    """The folding for a rate or for a budget of LUTs, FIFOs included.

    Parameters
    ----------
    cycles: per image at most, at the least cost.
    max_luts: at most, by estimate, at the best rate.
    budget, work: as for `size_fifos`.

    One of both is given; raises N2uqError for what cannot be reached.
    """
    want, room = cycles, max_luts
    while True:
        folding = problem.within(want) if want is not None else problem.fastest(room or 0)
        plan = sized(problem.graph, folding, problem.family, budget=budget, work=work)
        # What FIFOs take, of time or of LUTs, shows only when they are sized.
        if want is not None and cycles is not None and plan.cycles > cycles:
            want -= ceil(plan.cycles - cycles)
        elif room is not None and max_luts is not None and plan.luts > max_luts:
            room -= plan.luts - max_luts
        else:
            return plan


def sized(graph: Graph, folding: Folding, family: str = "xcup", *, budget: float = 0.0,
          work: float = WORK) -> Plan:
    """The folding with depths for its FIFOs; `budget` and `work` are those of `size_fifos`."""
    return Plan(graph, size_fifos(graph, folding, budget=budget, work=work), family)


def unrolled(graph: Graph, levels: int = 2, lut: int = 6) -> Folding:
    """Every MatVec unrolled, every other unit with as many lanes as it can have and a reader takes.

    Parameters
    ----------
    levels, lut: see `UnrolledFold`.
    """
    folding: Folding = {}
    takes: dict[str, int] = {}  # elements per beat, by edge
    for node in reversed(graph.nodes):
        reads, edge = graph.reads(node), graph.edges[node.name]
        wanted = takes.get(node.name, edge.size)
        if not isinstance(node, Flatten):
            most = next(fold for fold in reversed(folds_of(node, reads, edge))
                        if lanes_out(node, fold, edge) <= wanted)
            if isinstance(node, Threshold):
                most = ThresholdFold(most.pe, threshold_styles(node, reads[0])[0])
            folding[node.name] = UnrolledFold(
                edge.channels, reads[0].channels, levels, lut) if isinstance(node, MatVec) else most
        for port, (name, read) in enumerate(zip(node.inputs, reads, strict=True)):
            lanes = (wanted if isinstance(node, Flatten)
                     else lanes_in(node, port, folding[node.name], read))
            takes[name] = max(takes.get(name, 0), lanes)
    return dict(reversed(folding.items()))


def choose(graph: Graph, cycles: int | None = None, family: str = "xcup") -> Folding:
    """The least estimated cost (see `plan.problem`) at no more than `cycles` per image, all folded.

    Nothing unrolled: to see what that costs takes seconds.

    Parameters
    ----------
    graph: lowered graph.
    cycles: per image in the timing model at most, at least 1.  Default: every unit is busy for
        `slowest_window` cycles at most, and they may wait for each other beside that.
    family: what costs are estimated for, xcup or ecp5.

    Raises N2uqError where a layer cannot reach the target at all.
    """
    target = slowest_window(graph) if cycles is None else cycles
    if target < 1:
        raise N2uqError(f"{graph.name}: cycles per image must be at least 1, not {target}")
    problem = Problem(graph, family, unrolls=False)
    return problem.solve(target)[1] if cycles is None else problem.within(target)


def save_folding(folding: Folding, graph: Graph, path: Path) -> None:
    """Write the folding to a file, as `folding_text` has it."""
    write_file(path, folding_text(folding, graph))


def folding_text(folding: Folding, graph: Graph) -> str:
    """The folding as YAML, one line per unit with all that its kind has to choose.

    The depths of FIFOs come last, under a key of their own.
    """
    rows = {node.name: asdict(folding[node.name]) for node in graph.nodes if node.name in folding}
    text = "".join(_yaml({name: row}) for name, row in rows.items())
    if depths := fifo_depths(graph, folding):
        text += _yaml({fifos_key(graph): depths}, default_flow_style=False)
    return text


def _yaml(rows: dict[str, Any], default_flow_style: bool | None = None) -> str:
    """YAML of `rows`, what they hold in one line each; names as they are."""
    return yaml.safe_dump(rows, default_flow_style=default_flow_style, sort_keys=False,
                          allow_unicode=True, width=inf)


def load_folding(path: Path, graph: Graph) -> Folding:
    """Read a YAML folding for `graph`; units that it does not name keep the chosen folding.

    FIFOs that it does not name have no entry: `sim.sizing` chooses them.
    """
    try:
        rows: Any = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise N2uqError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(rows, dict):
        raise N2uqError(f"{path}: must map layer names to foldings, not {type(rows).__name__}")
    depths = rows.pop(fifos := fifos_key(graph), {})
    units = {node.name: node for node in graph.nodes if not isinstance(node, Flatten)}
    folding = ({name: unfolded(node) for name, node in units.items()} if rows.keys() >= units.keys()
               else choose(graph))
    for name, row in rows.items():
        if name not in units:
            raise N2uqError(f"{path}: {name} must be a unit of {graph.name}: "
                            f"{', '.join(units)}")
        folding[name] = _fold(path, graph, units[name], row, folding[name])
    if not isinstance(depths, dict):
        raise N2uqError(f"{path}: {fifos} must map FIFOs to depths, not {depths!r}")
    for name, depth in depths.items():
        if name not in (names := fifo_names(graph)):
            raise N2uqError(f"{path}: {fifos}: {name} must be a FIFO of a join of {graph.name}: "
                            f"{', '.join(names) or 'it has none'}")
        if type(depth) is not int or not 1 <= depth <= MAX_ELEMENTS:
            raise N2uqError(f"{path}: {fifos}: {name} must be 1 to {MAX_ELEMENTS} beats, "
                            f"not {depth!r}")
        folding[name] = FifoFold(depth=depth)
    check(graph, folding)
    return folding


def _fold(path: Path, graph: Graph, node: Node, row: object, chosen: Fold) -> Fold:
    """The Fold that a file's `row` says; what it does not say is as `chosen`."""
    form = row.get("form") if isinstance(row, dict) else None
    if isinstance(node, MatVec) and isinstance(form, str) and form not in (*PRODUCTS, UNROLLED):
        raise N2uqError(f"{path}: {node.name}.form must be one of {', '.join(PRODUCTS)}, "
                        f"{UNROLLED}, not {form!r}")
    kind = UnrolledFold if isinstance(node, MatVec) and form == UNROLLED else fold_types(node)[0]
    types = {f.name: type(f.default) for f in fields(kind)}
    *most, last = types
    listed = f"{', '.join(most)} or {last}" if most else last
    if not isinstance(row, dict):
        raise N2uqError(f"{path}: {node.name} must map {listed}, not {row!r}")
    for key, value in row.items():
        if key not in types:
            raise N2uqError(f"{path}: {node.name}: key must be {listed}, not {key}")
        if type(value) is not types[key]:
            raise N2uqError(f"{path}: {node.name}.{key} must be {types[key].__name__}, "
                            f"not {value!r}")
    if kind is not UnrolledFold:
        return kind(**asdict(chosen) | row)
    whole = {"pe": graph.edges[node.name].channels, "simd": graph.reads(node)[0].channels}
    return UnrolledFold(**whole | {key: value for key, value in row.items() if key != "form"})

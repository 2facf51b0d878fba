"""The folding for a rate or a budget, and the files that hold foldings."""

from __future__ import annotations

from dataclasses import asdict, fields
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from ..cost.estimate import Cost
from ..errors import N2uqError
from ..files import read_text, write_file
from ..hw.passes import unroll
from ..ir import Flatten, Graph, MatVec, Node, describe
from ..ir.folding import (
    FIFOS,
    FORMS,
    UNROLLED,
    FifoFold,
    Fold,
    Folding,
    UnrolledFold,
    check,
    divided,
    fifo_depths,
    fifo_names,
    fold_cycles,
    fold_types,
    folds_of,
    lanes_in,
    lanes_out,
    slowest_window,
    style_of,
    unfolded,
)
from ..ir.nodes import MAX_ELEMENTS
from ..sim.timing.fifos import WORK, Sizing, size_fifos
from ..sim.timing.forecast import forecast
from .problem import Problem, prices

__all__ = ["choose", "described", "fold", "load_folding", "save_folding", "sized", "unrolled"]


def fold(problem: Problem, *, cycles: int | None = None, max_luts: int | None = None,
         budget: float = 0.0, work: float = WORK) -> tuple[Sizing, dict[str, Any]]:
    """The folding for a rate or for a budget of LUTs, FIFOs included; and what it costs.

    Parameters
    ----------
    cycles: per image at most, at the least cost.
    max_luts: at most, by estimate, at the best rate.  With neither, as `choose` does, all folded.
    budget, work: as for `size_fifos`.

    Returns what `sized` does; raises N2uqError for what cannot be reached.
    """
    want, room = cycles, max_luts
    while True:
        if want is not None:
            folding = problem.within(want)
        elif room is not None:
            folding = problem.fastest(room)
        else:
            folding = choose(problem.graph, family=problem.family)
        found, made = sized(problem, folding, budget=budget, work=work)
        taken, used = made["cycles_per_image"], made["total"]["lut"] + made["total"]["lutram"]
        # What FIFOs take, of time or of LUTs, shows only when they are sized.
        if want is not None and cycles is not None and taken > cycles:
            want -= ceil(taken - cycles)
        elif room is not None and max_luts is not None and used > max_luts:
            room -= used - max_luts
        else:
            return found, made


def sized(problem: Problem, folding: Folding, *, budget: float = 0.0, work: float = WORK
          ) -> tuple[Sizing, dict[str, Any]]:
    """The folding with depths for its FIFOs (`size_fifos`), and `described` of that."""
    found = size_fifos(problem.graph, folding, budget=budget, work=work)
    taken = forecast(problem.graph, found.folding).cycles_per_image
    return found, described(problem, found.folding, taken)


def described(problem: Problem, folding: Folding, cycles: float) -> dict[str, Any]:
    """A folding and what it costs, JSON-ready: a row per unit, what joins units, and the whole.

    `cycles` are per image, as measured or predicted.
    """
    family, (graph, folding) = problem.family, unroll(problem.graph, folding)
    priced = prices(graph, folding, family)
    whole = _counted(*priced.values())
    rows = []
    for node in graph.nodes:
        if isinstance(node, Flatten):
            continue
        fold = folding[node.name]
        macs = fold.pe * fold.simd if isinstance(node, MatVec) else 0
        rows.append({
            "name": node.name, "kind": type(node).__name__, "pe": fold.pe, "simd": fold.simd,
            "style": style_of(fold),
            "multipliers": macs, "cycles": fold_cycles(
                node, graph.reads(node), graph.edges[node.name], fold),
            **_counted(priced.pop(node.name))})
    macs = sum(row["macs"] for row in describe(graph))
    return {"name": graph.name, "family": family, "cycles_per_image": cycles, "macs": macs,
            "macs_per_cycle": macs / cycles, "layers": rows,
            "between": {"units": len(priced), **_counted(*priced.values())},
            "total": whole}


def _counted(*costs: Cost) -> dict[str, int]:
    """The sum, in whole cells."""
    return {kind: round(sum(getattr(cost, kind) for cost in costs)) for kind in Cost._fields}


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
            folding[node.name] = UnrolledFold(most.pe, most.simd, levels, lut) if isinstance(
                node, MatVec) else most
        for name, read in zip(node.inputs, reads, strict=True):
            lanes = (wanted if isinstance(node, Flatten)
                     else lanes_in(node, folding[node.name], read))
            takes[name] = max(takes.get(name, 0), lanes)
    return dict(reversed(folding.items()))


def choose(graph: Graph, cycles: int | None = None, family: str = "xcup") -> Folding:
    """The least estimated cost (see `plan.problem`) at no more than `cycles` per image, all folded.

    Nothing unrolled: to see what that costs takes seconds.

    Parameters
    ----------
    graph: lowered graph.
    cycles: target cycles per image, at least 1; default `slowest_window`.
    family: what costs are estimated for, xcup or ecp5.

    Raises N2uqError where a layer cannot reach the target at all.
    """
    from ..plan.problem import Problem

    target = slowest_window(graph) if cycles is None else cycles
    if target < 1:
        raise N2uqError(f"{graph.name}: cycles per image must be at least 1, not {target}")
    return Problem(graph, family, unrolls=False).solve(target)[1]


def save_folding(folding: Folding, graph: Graph, path: Path) -> None:
    """Write the folding as YAML, one line per unit with all that its kind has to choose.

    The depths of FIFOs come last, under a key of their own.
    """
    rows = {node.name: asdict(folding[node.name]) for node in graph.nodes if node.name in folding}
    text = "".join(f"{name}: {yaml.safe_dump(row, default_flow_style=True, sort_keys=False)}"
                   for name, row in rows.items())
    if depths := fifo_depths(graph, folding):
        text += yaml.safe_dump({FIFOS: depths}, sort_keys=False)
    write_file(path, text)


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
    depths = rows.pop(FIFOS, {})
    units = {node.name: node for node in graph.nodes if not isinstance(node, Flatten)}
    folding = ({name: unfolded(node) for name, node in units.items()} if rows.keys() >= units.keys()
               else choose(graph))
    for name, row in rows.items():
        if name not in units:
            raise N2uqError(f"{path}: {name} must be a unit of {graph.name}: "
                            f"{', '.join(units)}")
        folding[name] = _fold(path, graph, units[name], row, folding[name])
    if not isinstance(depths, dict):
        raise N2uqError(f"{path}: {FIFOS} must map FIFOs to depths, not {depths!r}")
    for name, depth in depths.items():
        if name not in (names := fifo_names(graph)):
            raise N2uqError(f"{path}: {FIFOS}: {name} must be a FIFO on an Add of {graph.name}: "
                            f"{', '.join(names) or 'it has none'}")
        if type(depth) is not int or not 1 <= depth <= MAX_ELEMENTS:
            raise N2uqError(f"{path}: {FIFOS}: {name} must be 1 to {MAX_ELEMENTS} beats, "
                            f"not {depth!r}")
        folding[name] = FifoFold(depth=depth)
    check(graph, folding)
    return folding


def _fold(path: Path, graph: Graph, node: Node, row: object, chosen: Fold) -> Fold:
    """The Fold that a file's `row` says; what it does not say is as `chosen`."""
    form = row.get("form") if isinstance(row, dict) else None
    if isinstance(node, MatVec) and isinstance(form, str) and form not in (*FORMS, UNROLLED):
        raise N2uqError(f"{path}: {node.name}.form must be one of {', '.join(FORMS)}, {UNROLLED}, "
                        f"not {form!r}")
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
    whole = {key: total for key, (_, total) in divided(
        node, graph.reads(node), graph.edges[node.name]).items()}
    return UnrolledFold(**whole | {key: value for key, value in row.items() if key != "form"})

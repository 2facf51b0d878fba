"""`n2uq-hw compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import N2uqError
from ..jobs import cache_folder
from ..tables import Table
from .options import AsJson, Cluster, numbers, within
from .output import bars, say, show, show_json

if TYPE_CHECKING:
    from ..compare.measure import Comparison
    from ..hw.designs import Design


def compare(
        out: Annotated[Path, typer.Option(help="The folder of results to write.")],
        quick: Annotated[bool, typer.Option(
            "--quick", help="Take minutes: 8 lanes, xcup and cmos, no DSP blocks, no place and "
            "route, unless other options say otherwise. Synthesizes small designs several at a "
            "time, which moves their LUTs by about 1 %.")] = False,
        level: Annotated[str, typer.Option(
            help="What to compare: lane (an array of lanes), mvu (with weight memory and "
            "quantizer), quantizer, or network (a shipped net).")] = "lane",
        bits: Annotated[str, typer.Option(help="Bits of weights and activations.")] = "2,3,4",
        lanes: Annotated[str | None, typer.Option(
            help="Products per cycle. Default: 8,16,64,256; of an MVU 64,256; of a quantizer "
            "1,8.")] = None,
        families: Annotated[str | None, typer.Option(
            help="Device families: xcup, xc7, ecp5, ice40, and cmos for gates and transistors. "
            "Default: all.")] = None,
        dsp: Annotated[str | None, typer.Option(
            help="Whether multiplier blocks are allowed: off, on, or off,on (default).")] = None,
        pnr: Annotated[str | None, typer.Option(
            help="What to place and route on ecp5 and ice40: all, none, or best (default), the "
            "design of each method with the fewest LUTs.")] = None,
        seeds: Annotated[str, typer.Option(
            help="Seeds of the placer. Fmax is the median.")] = "1,2,3",
        design: Annotated[list[str] | None, typer.Option(
            help="A design of your own, module:Class. Repeat the option for more.")] = None,
        methods: Annotated[str | None, typer.Option(
            help="Compare only designs of these methods, such as N2UQ,APoT.")] = None,
        net: Annotated[list[str] | None, typer.Option(
            help="Count toggles on the codes of this net, at its bits. Repeat the option for more. "
            "Default: uniformly random codes.")] = None,
        trained: Annotated[bool | None, typer.Option(
            "--trained/--no-trained", help="Include designs with the levels of trained nets, and "
            "show their accuracy beside the cost. Default: yes, but not with --quick.")] = None,
        jobs: Annotated[int, typer.Option(min=1, help="How many processes work side by side.")] = 2,
        limit: Annotated[float, typer.Option(
            callback=within(0.001, 10_000_000, "seconds"),
            help="Time limit in seconds for one step of one design.")] = 1800.0,
        cache: Annotated[Path | None, typer.Option(
            envvar="N2UQ_CACHE", help="Folder of earlier measurements. Default: "
            "~/.cache/n2uq-hw.")] = None,
        cluster: Cluster = "", as_json: AsJson = False) -> None:
    """Measure what N2UQ's arithmetic costs beside that of nonuniform quantizers.

    Exit code 1 if a design differs from its golden model; 2 if a row could not be measured.
    """
    from ..compare import report
    from ..compare.measure import FAMILIES, Settings, measure
    from ..compare.subjects import LEVELS, layer_codes
    from ..train.study import load_rows, studies

    default = LEVELS[level].lanes if level in LEVELS else ()
    settings = Settings(
        classes=_classes(design or (), methods), level=level, bits=numbers("--bits", bits),
        lanes=numbers("--lanes", lanes) if lanes else default[:1] if quick else default,
        families=tuple((families or ("xcup,cmos" if quick else ",".join(FAMILIES))).split(",")),
        dsps=tuple((dsp or ("off" if quick else "off,on")).split(",")),
        routed=pnr or ("none" if quick else "best"), seeds=numbers("--seeds", seeds),
        codes=tuple(map(layer_codes, net or ())), together=quick,
        trained=() if (quick if trained is None else not trained) else tuple(
            levels for study in studies(level)
            for levels in study.levels(load_rows(study.results))))
    with bars() as progress:
        result = measure(settings, cache or cache_folder(), workers=jobs, limit=limit,
                         cluster=cluster, progress=progress)
    summary = report.write(result, settings, out)
    if as_json:
        show_json(summary)
    else:
        _show(result, len(summary["losses"]), out)
    for line in result.notes:
        say(f"note: {line}")
    for line in result.failures:
        say(f"failed: {line}")
    if result.failures:
        raise typer.Exit(1 if result.mismatch else 2)


def _show(result: Comparison, losses: int, out: Path) -> None:
    from ..compare.report import cells, contests

    table = Table("bits", "lanes", "family", "N2UQ", "size", "best nonuniform", "size", "ratio",
                  left=1)
    for contest in contests(result.rows):
        table.add_row(*cells(contest))
    show(table, "size: LUTs, transistors on cmos; of the best form of each side",
         f"{len(result.rows):,} rows and {losses:,} cases that N2UQ loses in {out / 'report.md'}")


def _classes(own: Sequence[str], methods: str | None) -> tuple[type[Design], ...]:
    """The tree's designs and the user's, or those of them that have one of the methods."""
    from ..compare.measure import find_design
    from ..hw.designs import DESIGNS

    classes = (*DESIGNS, *map(find_design, own))
    if methods is None:
        return classes
    known = list(dict.fromkeys(cls.method for cls in classes))
    for name in methods.split(","):
        if name not in known:
            raise N2uqError(f"--methods must be of {', '.join(known)}, not {name or 'nothing'}")
    return tuple(cls for cls in classes if cls.method in methods.split(","))

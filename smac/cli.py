"""The command line: `smac list | new | show | plan | emit | check | bench | export | doctor`.

Exit code 0 for success, 1 for a failure (one line on stderr), 2 for a command line that is not
understood. Text fits 80 columns. Nothing heavy is imported before a command needs it.

Non-goals: no logic of its own; each command is a few calls of the public surface.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smac.errors import PlanError, SmacError, SpecError

WIDTH = 80
ORDERS = ("auto", "quadratic", "chunked", "linear")
DTYPES = ("float64", "float32", "bfloat16", "float16")
_SIZES = "sizes of axes, as T=4096 H=32; those left out come from the spec's [sizes]"
#: Folders of the cache, and what lies there.
_CACHED = (("src", "rendered sources"), ("tune", "tuning results"),
           ("checked", "programs that were right at first use"), ("mismatch", "that were wrong"),
           ("templates", "kinds of compiled templates"), ("triton", "digests of Triton"))
_SPEC = "name of a shipped spec (see smac list), or path to a .toml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except SmacError as e:
        print(f"smac: {' '.join(str(e).split())}", file=sys.stderr)
    except BrokenPipeError:  # e.g. `smac plan ssd | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:
        print(f"smac: {e.filename}: {e.strerror}", file=sys.stderr)
    return 1


# ---- arguments -------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(
        prog="smac", description="Structured masked attention, compiled from a short spec.",
        epilog="example: smac plan ssd T=8192 --device h100")  # fmt: skip
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    _command(commands, "list", _list, "the shipped specs", "smac list", spec=False)
    p = _command(commands, "new", _new, "write a commented spec to start from",
                 "smac new mymask -o mymask.toml", spec=False)  # fmt: skip
    p.add_argument("name", metavar="NAME", help="of the spec: letters, digits and _")
    p.add_argument("-o", "--output", metavar="FILE", help="where to (default: NAME.toml here)")
    p = _command(commands, "show", _show, "its mask, tiles, ranks and times, drawn",
                 "smac show ssd T=8192 --device h100 -o ssd.png")  # fmt: skip
    p.add_argument("-o", "--output", metavar="FILE.png",
                   help="draw a PNG by matplotlib instead of text")  # fmt: skip
    _options(p, target=True, order=True, device=True, dtype=True, backward=True, absent=True,
             frozen=True)  # fmt: skip
    p = _command(commands, "plan", _plan, "every candidate, its cost, and why it lost",
                 "smac plan ssd T=8192 H=80 --device h100 --dtype bfloat16")  # fmt: skip
    _options(p, target=True, order=True, device=True, dtype=True, backward=True, absent=True,
             frozen=True)  # fmt: skip
    p = _command(commands, "emit", _emit, "the generated source",
                 "smac emit ssd T=2048 --target triton --absent z")  # fmt: skip
    _options(p, target=True, order=True, device=True, dtype=True, absent=True, frozen=True)
    p = _command(commands, "check", _check, "property-test a spec against the float64 oracle",
                 "smac check ssd --targets torch --examples 50", sizes=False)  # fmt: skip
    _check_options(p)
    p = _command(commands, "bench", _bench, "time it on this machine",
                 "smac bench ssd T=4096 H=24 --orders chunked,quadratic", spec="maybe")  # fmt: skip
    _bench_options(p)
    p = _command(commands, "export", _export, "write one file that runs without SMAC",
                 "smac export ssd T=2048 -o ssd.py")  # fmt: skip
    p.add_argument("-o", "--output", metavar="FILE", help="where to (default: NAME.py here)")
    _options(p, target=True, order=True, device=True, dtype=True, absent=True)
    _command(commands, "doctor", _doctor, "versions, targets, GPU and caches", "smac doctor",
             spec=False)  # fmt: skip
    return top


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str,
    example: str, *, spec: bool | str = True, sizes: bool = True,
) -> argparse.ArgumentParser:  # fmt: skip
    p: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example: {example}")  # fmt: skip
    if spec:
        p.add_argument("spec", metavar="SPEC", help=_SPEC, nargs="?" if spec == "maybe" else None)
    if spec and sizes:
        p.add_argument("sizes", metavar="AXIS=SIZE", nargs="*", type=_size, help=_SIZES)
    p.set_defaults(run=run)
    return p


def _size(text: str) -> tuple[str, int]:
    """`T=4096`; argparse turns the ValueError into a usage error."""
    axis, _, number = text.partition("=")
    if not axis.isidentifier() or not (number.isascii() and number.isdigit()) or len(number) > 13:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected AXIS=SIZE, as T=4096")
    return axis, int(number)


def _several(*known: str) -> Callable[[str], tuple[str, ...]]:
    """A parser of "a,b": names of `known`, or any when there are none."""

    def parse(text: str) -> tuple[str, ...]:
        parts = tuple(dict.fromkeys(text.split(",")))
        for part in parts:
            if not part or (known and part not in known):
                raise argparse.ArgumentTypeError(
                    f"found {part!r}; expected {', '.join(known) or 'names, as z,D'}")  # fmt: skip
        return parts

    return parse


def _options(p: argparse.ArgumentParser, *, target: bool = False, order: bool = False,
             device: bool = False, dtype: bool = False, backward: bool = False,
             absent: bool = False, frozen: bool = False) -> None:  # fmt: skip
    if target:
        p.add_argument("--target", choices=("auto", "torch", "triton"), default="auto",
                       help="what to print kernels for (default: by the device)")  # fmt: skip
    if order:
        p.add_argument("--order", choices=ORDERS, default="auto", help="instead of the planner's")
        p.add_argument("--chunk", type=int, metavar="C", help="tokens in a chunk")
    if device:
        p.add_argument("--device", metavar="NAME",
                       help="h100, h200, a100, cpu, cuda (default: this machine's)")  # fmt: skip
    if dtype:
        p.add_argument("--dtype", choices=DTYPES, help="type of the operands")
    if backward:
        p.add_argument("--backward", action="store_true", help="plan the backward")
    if absent:
        p.add_argument("--absent", type=_several(), default=(), metavar="A,B",
                       help="optional inputs that will not be passed")  # fmt: skip
    if frozen:
        p.add_argument("--frozen", type=_several(), default=(), metavar="A,B",
                       help="inputs that take no gradient")  # fmt: skip


def _check_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--targets", type=_several("torch", "triton"), metavar="A,B",
                   default=("torch", "triton"), help="torch, triton (default: both)")  # fmt: skip
    p.add_argument("--orders", type=_several(*ORDERS[1:]), metavar="A,B",
                   help="quadratic, chunked, linear (default: all)")  # fmt: skip
    p.add_argument("--dtypes", type=_several(*DTYPES), metavar="A,B",
                   help="float64, float32, bfloat16, float16 (default: all)")  # fmt: skip
    p.add_argument("--examples", type=int, default=10, metavar="N",
                   help="drawn cells a target, order and dtype (default: 10)")  # fmt: skip
    p.add_argument("--seed", type=int, default=0, help="of the drawn cells (default: 0)")
    p.add_argument("--quick", action="store_true", help="the fixed cells alone")


def _bench_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--orders", type=_several(*ORDERS), default=("auto",), metavar="A,B",
                   help="quadratic, chunked, linear, auto (default: auto)")  # fmt: skip
    p.add_argument("--tune", choices=("off", "quick", "full"), default="off",
                   help="search configurations first, and report them (default: off)")  # fmt: skip
    p.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5; medians")
    p.add_argument("--calibrate", action="store_true",
                   help="without SPEC: measure this machine's row of the device table, keep it")
    p.add_argument("--device", choices=("cpu", "cuda"), help="what to calibrate (default: cuda)")
    _options(p, target=True, device=False, dtype=True, absent=True)


# ---- commands --------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    from smac.parse import load
    from smac.paths import shipped_specs

    specs = [load(str(path)) for path in shipped_specs().values()]
    width = max(len(s.name) for s in specs)
    for s in specs:
        print(textwrap.fill(s.about, WIDTH, initial_indent=f"{s.name:{width}}  ",
                            subsequent_indent=" " * (width + 2)))  # fmt: skip
    return 0


def _compiled(args: argparse.Namespace, order: str | None = None) -> Any:
    import smac

    return smac.compile(args.spec, target=args.target, order=order or args.order,
                        chunk=getattr(args, "chunk", None),
                        tune=getattr(args, "tune", "off"))  # fmt: skip


def _new(args: argparse.Namespace) -> int:
    from smac.starter import write

    out = write(args.name, args.output)
    print(f"{out}: written; next: smac show {out} · smac plan {out} · smac check {out}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from smac.picture import look

    seen = look(_planned(args))
    if args.output is None:
        from smac.picture.text import render

        print(render(seen))
    else:
        from smac.picture.draw import save

        print(f"{save(seen, args.output)}: drawn")
    return 0


def _planned(args: argparse.Namespace) -> Any:
    return _compiled(args).plan(dtype=args.dtype, device=args.device, backward=args.backward,
                                absent=args.absent, frozen=args.frozen,
                                **dict(args.sizes))  # fmt: skip


def _plan(args: argparse.Namespace) -> int:
    plan = _planned(args)
    print(plan.explain(width=WIDTH))
    if args.order == "auto":
        print(_crossover(plan))
    return 0


def _crossover(plan: Any) -> str:
    """From which T the quadratic order stops winning, all else as in the request."""
    from smac.plan import crossover

    r = plan.request
    where = crossover(plan.asked, sizes=plan.lengths, dtype=r.dtype, device=r.device,
                      target=r.target, backward=r.backward, frozen=frozenset(plan.frozen))
    if where is None and plan.order != "quadratic":
        return "crossover  not one alone: the quadratic order wins again at T=131072"
    return "crossover  " + (f"the quadratic order wins below T={where}" if where is not None else
                            "none: the quadratic order wins at every T up to 131072")  # fmt: skip


def _emit(args: argparse.Namespace) -> int:
    text = _compiled(args).source(dtype=args.dtype, device=args.device,
                                  absent=args.absent, frozen=args.frozen,
                                  **dict(args.sizes))  # fmt: skip
    print(text, end="")
    return 0


def _check(args: argparse.Namespace) -> int:
    import smac

    report = smac.check(smac.load(args.spec), seed=args.seed, examples=args.examples,
                        targets=args.targets, orders=args.orders, dtypes=args.dtypes,
                        quick=args.quick)  # fmt: skip
    print(report)
    if not report.ok:
        broken = len(report.failures)
        print(f"smac: {report.name}: {broken} failures" if broken else
              f"smac: {report.name}: nothing was run", file=sys.stderr)  # fmt: skip
    return 0 if report.ok else 1


def _bench(args: argparse.Namespace) -> int:
    if args.calibrate == (args.spec is not None):
        found = "both" if args.calibrate else "neither"
        raise SpecError(f"bench: found {found} of SPEC and --calibrate; expected one of them")
    if args.calibrate:
        return _calibrate(args)
    from smac.testing.timing import time_op

    print(f"{args.spec}: {' '.join(f'{a}={n}' for a, n in args.sizes) or 'at its [sizes]'}")
    print(f"{'order':10} {'chunk':>6} {'forward':>12} {'fwd + bwd':>12} {'predicted fwd':>14}")
    for order in args.orders:
        t = time_op(_compiled(args, order), dict(args.sizes), dtype=args.dtype,
                    absent=args.absent, repeats=args.repeats)  # fmt: skip
        print(f"{t.order:10} {t.chunk:6d} {_ms(t.forward)} {_ms(t.both)} {_ms(t.predicted, 14)}",
              flush=True)  # fmt: skip
    print(f"medians of {args.repeats}, {t.dtype} on {t.device}")
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    import torch

    from smac.plan.calibrated import keep
    from smac.plan.devices import TABLE
    from smac.runtime.calibrate import calibrate
    from smac.runtime.device import machine, shipped_row

    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PlanError("--device cuda: found no CUDA device; expected an NVIDIA GPU")
    for what, measured in calibrate(device):
        print(f"measured: {what}", file=sys.stderr, flush=True)
        row = measured
    shipped = TABLE[shipped_row(device)].to_dict()
    print(f"{row.name}, measured on {machine(device)}\n{'':10} {'measured':>12} {'shipped':>12}")
    for name, value in row.to_dict().items():
        if isinstance(value, int | float):
            print(f"{name:10} {value:12.4g} {float(shipped[name]):12.4g}")
    print(f"{keep(row, machine(device))}: written; plans for this machine use it from now on\n"
          "(SMAC_CALIBRATED=0 or deleting the file: the shipped row)")  # fmt: skip
    return 0


def _ms(seconds: float, width: int = 12) -> str:
    return f"{1e3 * seconds:{width - 3}.2f} ms"


def _export(args: argparse.Namespace) -> int:
    op = _compiled(args)
    out = Path(args.output or f"{op.spec.name}.py")
    op.export(out, dtype=args.dtype, device=args.device, absent=args.absent,
              **dict(args.sizes))  # fmt: skip
    print(f"{out}: {len(out.read_text('utf-8').splitlines())} lines; run it to test it")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    import platform
    from importlib import metadata

    from smac import __version__
    from smac.paths import shipped_specs, templates_dir

    print(f"smac        {__version__}, {len(shipped_specs())} specs")
    print(f"python      {platform.python_version()} on {platform.platform(terse=True)}")
    missing = []
    needed = ("torch", "triton", "jinja2", "sympy", "opt_einsum", "hypothesis")
    for name in needed:
        try:
            print(f"{name:11} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
            print(f"{name:11} not installed")
    print(f"templates   {templates_dir()}")
    if "torch" not in missing:
        _doctor_torch("triton" not in missing)
    broken = [n for n in missing if n not in ("triton", "hypothesis")]
    if broken:
        print(f"smac: not installed: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _doctor_torch(triton: bool) -> None:
    import torch

    from smac.cachefile import cache_dir

    print(f"cache       {cache_dir()}")
    for name, what in _CACHED:
        print(f"  {name:9} {len(list((cache_dir() / name).glob('*')))} {what}")
    print(f"target torch   runs here ({torch.get_num_threads()} threads)")
    if not triton:
        why = "plans and emits here; running needs triton"
    elif torch.cuda.is_available():
        why = f"runs here on {torch.cuda.get_device_name()}"
    else:
        why = "plans and emits here; no GPU: check runs it interpreted"
    print(f"target triton  {why}")
    if triton and torch.cuda.is_available():
        _doctor_compiler(torch.cuda.get_device_capability()[0])


def _doctor_compiler(arch: int) -> None:
    """What is known to go wrong in this compiler on this GPU, and what SMAC does."""
    from importlib import metadata

    from smac.codegen.known_bad import that_apply

    version = metadata.version("triton")
    for k in that_apply(version, arch):
        text = f"{k.pattern}: {k.goes_wrong}. SMAC: {k.instead}"
        print(textwrap.fill(text, WIDTH, initial_indent=f"  known bad    {k.name}: ",
                            subsequent_indent=" " * 15))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

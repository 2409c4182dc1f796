"""Measure: `python -m tests.bench [--effort quick] [FIGURE ...]`, or `make bench`."""

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from orchestrator.errors import RenderError
from tests.bench import concurrent, end_to_end, first_segment, memory, overhead, script, starts, transport
from tests.bench.machine import RESULTS, describe_machine, last_record, record
from tests.bench.scores import Figure, compare
from tests.bench.workbench import NORMAL, QUICK, SMOKE, Workbench

MEASURES = {
    "a": end_to_end.measure,
    "b": transport.measure,
    "c": script.measure,
    "d": memory.measure,
    "e": concurrent.measure,
    "f": first_segment.measure,
    "g": starts.measure,
    "h": overhead.measure,
}
EFFORTS = {"normal": NORMAL, "quick": QUICK, "smoke": SMOKE}


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line names; returns the exit status: 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {' '.join(MEASURES)}; default: all")
    parser.add_argument("--effort", choices=EFFORTS, default="normal", help="how long to measure; only normal runs of all figures are recorded")
    parser.add_argument(
        "--out", type=Path, help="folder to record the run in, whatever its effort; default: the repository's, for normal runs of all"
    )
    given = parser.parse_args(arguments)
    if unknown := set(given.figures) - set(MEASURES):
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; choose of {' '.join(MEASURES)}")
    wanted = sorted(set(given.figures)) or list(MEASURES)
    load, began = os.getloadavg()[0], time.monotonic()
    figures: list[Figure] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as folder, Workbench(Path(folder), EFFORTS[given.effort]) as bench:
        machine = describe_machine(bench.client.server_name())
        print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['gpu'] or 'no GPU'}; load before {load:.1f}")
        print(f"{bench.media.source}; {given.effort} effort\n")
        for letter in wanted:
            part_began = time.monotonic()
            try:
                for figure in MEASURES[letter](bench):
                    figures.append(figure)
                    print(_line(figure), flush=True)
            except (RenderError, RuntimeError, OSError, AssertionError):
                failed.append(letter)
                traceback.print_exc()
            print(f"  ({letter}: {time.monotonic() - part_began:.0f} s)", flush=True)
    earlier = last_record(machine, given.out or RESULTS)
    _print_changes(figures, earlier)
    if given.out or (given.effort == "normal" and len(wanted) == len(MEASURES) and not failed):
        print(f"\nRecorded in {record(machine, figures, time.monotonic() - began, load, given.out or RESULTS)}")
    if failed:
        print(f"\nCould not be measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _line(figure: Figure) -> str:
    target = ""
    if figure.target is not None:
        target = f"{'<=' if figure.better == 'lower' else '>='} {figure.target:.4g} {'reached' if figure.is_reached else 'MISSED'}"
    return f"{figure.name:44}{figure.value:9.3f} +-{100 * figure.spread:4.1f} %   {target}"


def _print_changes(figures: list[Figure], earlier: dict[str, object] | None) -> None:
    if earlier is None:
        print("\nThere is no earlier run on such a machine to compare with.")
        return
    changes = compare(figures, list(earlier["figures"]))  # type: ignore[call-overload]
    moved = [change for change in changes if change.verdict != "same"]
    print(f"\nAgainst the run of {earlier['at']}: {len(changes) - len(moved)} figures the same within their noise")
    for change in sorted(moved, key=lambda change: change.verdict):
        print(f"  {change.verdict:7}{change.name:44}{change.before:9.3f} -> {change.now:.3f} (noise {100 * change.noise:.0f} %)")


if __name__ == "__main__":
    sys.exit(main())

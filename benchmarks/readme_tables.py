"""The tables of README.md, made from what the benchmarks measured.

Command::

    python benchmarks/readme_tables.py

Whatever stands in README.md between ``<!-- measured: NAME -->`` and the next ``<!-- end -->`` is
replaced by the table of ``benchmarks/measured/NAME.json``, which ``benchmarks/NAME.py --json``
wrote. Where that file is absent the block stays as it is, and so does all text outside of blocks.
``make bench`` measures everything and then calls this.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parents[1]
_BEGIN, _END = "<!-- measured: ", "<!-- end -->"
_BLOCK = re.compile(
    rf"(?P<begin>{_BEGIN}(?P<name>\S+) -->\n)(?P<body>.*?)(?P<end>{_END})", re.DOTALL
)

Row: TypeAlias = dict[str, str]
Numbers: TypeAlias = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    parser.add_argument(
        "--measured",
        type=Path,
        default=ROOT / "benchmarks" / "measured",
        metavar="FOLDER",
        help="where NAME.json lie",
    )
    args = parser.parse_args()
    try:
        text = fill(args.readme.read_text(encoding="utf-8"), args.measured)
    except ValueError as error:
        sys.exit(f"{args.readme} stays as it is. {error}")
    args.readme.write_text(text, encoding="utf-8")


def fill(text: str, measured: Path) -> str:
    """Return the text with each block's table made anew, where its numbers are there.

    Raises
    ------
    ValueError
        If a block's name is no benchmark's, if it has no end, or if its file lacks a number.
    """

    def replace(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in TABLES:
            raise ValueError(f"No table is called {name!r}; there are {', '.join(TABLES)}.")
        if _BEGIN in block["body"]:
            raise ValueError(f"The block {name!r} has no {_END}.")
        path = measured / f"{name}.json"
        if not path.exists():
            return block[0]
        try:
            table = render(list(TABLES[name](json.loads(path.read_text(encoding="utf-8")))))
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"{path} lacks {error}: was it written by a whole run of benchmarks/{name}.py?"
            ) from error
        return f"{block['begin']}{table}{block['end']}"

    filled, n_blocks = _BLOCK.subn(replace, text)
    if n_blocks != text.count(_BEGIN):
        raise ValueError(f"A block is not of the form '{_BEGIN}NAME -->', its table, '{_END}'.")
    return filled


def render(rows: list[Row]) -> str:
    """Return a table in Markdown; all rows have the same columns."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"|{''.join(f' {x} |' if x else ' |' for x in cells)}\n" for cells in lines)


def digits(value: float | None) -> str:
    """Return a number with about three places that count; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return ""
    if value and abs(value) < 1:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def unit(value: float | None, name: str) -> str:
    """Return a number with its unit."""
    return f"{text} {name}" if (text := digits(value)) else ""


# ------------------------------------------------------------------- one function a benchmark


def tabulate_against_autotune(numbers: Numbers) -> Iterator[Row]:
    studies = {(row["scheduler"], row["side"]): row for row in numbers["studies"]}
    again = {(row["scheduler"], row["side"]): row for row in numbers["retrained"]}
    for row in numbers["ratios"]:
        scheduler = row["scheduler"]
        ours, peer = studies[scheduler, "ours"], studies[scheduler, "peer"]
        limit = "{:g} epochs each" if scheduler == "fifo" else "at most {:g} epochs"
        yield {
            "study": f"{scheduler.upper()}, {limit.format(ours['max_epochs'])}",
            "scvitune": unit(ours["process_s"], "s"),
            "scvi.autotune": unit(peer["process_s"], "s"),
            "trials an hour": f"{digits(row['ratio'])} times as many",
            "winners trained again, nats a cell": " and ".join(
                f"{again[scheduler, side]['elbo_mean']:.1f}" for side in ("ours", "peer")
            ),
        }


def tabulate_step(numbers: Numbers) -> Iterator[Row]:
    for row in numbers["rows"]:
        yield {
            "likelihood": row["likelihood"],
            "genes": str(row["genes"]),
            "scvitune": unit(row["ours_ms"], "ms"),
            "`model.train()`": unit(row["theirs_ms"], "ms"),
            "ratio": digits(row["ratio"]),
            "matrix products alone": unit(row["matmul_ms"], "ms"),
            "over them": digits(row["over_matmul"]),
        }


def tabulate_marginal_ll(numbers: Numbers) -> Iterator[Row]:
    for row in numbers["rows"]:
        yield {
            "likelihood": row["likelihood"],
            "genes": str(row["genes"]),
            "scvitune": unit(row["ours_s"], "s"),
            "`get_marginal_ll()`": unit(min(row["theirs_s"], row["batched_s"]), "s"),
            "ratio": digits(row["ratio"]),
        }


def tabulate_slots(numbers: Numbers) -> Iterator[Row]:
    for row in numbers["rows"]:
        yield {
            "trials at a time": str(row["processes"]),
            "threads each": str(row["threads"]),
            "steps a second": digits(row["steps_per_s"]),
            "times one trial with one thread": f"{row['times']:.2f}",
        }


def tabulate_memory(numbers: Numbers) -> Iterator[Row]:
    for row in numbers["rows"]:
        yield {
            "cells": f"{row['cells']:,}",
            "arrays on disk": f"{row['data_mb']:.0f} MB",
            "a further process": f"{row['process_mb']:.0f} MB",
            "of which imports": f"{row['imports_mb']:.0f} MB",
        }


def tabulate_destvi(numbers: Numbers) -> Iterator[Row]:
    row, found = numbers["rows"][0], {row["side"]: row for row in numbers["parity"]}
    yield {
        "spots x genes x types": f"{row['spots']} x {row['genes']} x {row['types']}",
        "scvitune": unit(row["ours_ms"], "ms"),
        "`DestVI.train()`": unit(row["theirs_ms"], "ms"),
        "ratio": digits(row["ratio"]),
        "correlation with the truth": " and ".join(
            f"{found[side]['pcc_mean']:.3f}" for side in ("ours", "peer")
        ),
    }


def tabulate_time_to_solution(numbers: Numbers) -> Iterator[Row]:
    for row in numbers["rows"]:
        end = f"{row['at end']:.2f}" if math.isfinite(row["at end"]) else ""
        yield {
            "strategy": row["strategy"],
            "at a quarter of the time": digits(row["at 1/4"]),
            "at the end": f"{end} (sd {row['sd']:.2f})" if end else "",
            "as good as random search's end": (
                f"after {row['random_s']:.0f} s" if row["random_s"] else "never"
            ),
        }


def tabulate_million_cells(numbers: Numbers) -> Iterator[Row]:
    row = numbers["row"]
    yield {
        "cells x genes": f"{row['cells']:,} x {row['genes']}",
        "prepared": f"{row['prepare_s']:.0f} s, {row['prepare_peak_mb'] / 1024:.1f} GB",
        "study": f"{row['study_s']:.0f} s, {row['study_peak_mb'] / 1024:.1f} GB in all",
        "a further process": f"{row['trial_uss_mb']:.0f} MB",
        "a step": unit(row["step_ms"], "ms"),
    }


def tabulate_scaling(numbers: Numbers) -> Iterator[Row]:
    for row in numbers["scaling"]:
        yield {
            "slots": str(row["slots"]),
            "trials an hour": f"{row['per_hour']:,.0f}",
            "ideal": f"{row['ideal']:,.0f}",
            "share": f"{100 * row['share']:.1f} %",
        }


TABLES: dict[str, Callable[[Numbers], Iterator[Row]]] = {
    "against_autotune": tabulate_against_autotune,
    "step": tabulate_step,
    "marginal_ll": tabulate_marginal_ll,
    "slots": tabulate_slots,
    "memory": tabulate_memory,
    "destvi": tabulate_destvi,
    "time_to_solution": tabulate_time_to_solution,
    "million_cells": tabulate_million_cells,
    "scaling": tabulate_scaling,
}


if __name__ == "__main__":
    main()

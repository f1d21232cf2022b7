"""`arrange`: runs graphviz, as the wheel of `graphviz-pure` carries it, and reads where things come to lie.

The program stands alone: no graphviz of the system is asked, and the same graph gives the same places everywhere.
"""

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Literal, NamedTuple

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
PROGRAM = "graphviz-pure"
LONG = 120  # seconds


class Arranged(NamedTuple):
    """What graphviz says, in points, with y downwards.

    Args:
        nodes: name -> its center.
        clusters: name -> its box.
        edges: `id` of an edge -> its control points: one, and three for each piece of curve.
    """

    nodes: dict[str, Point]
    clusters: dict[str, Box]
    edges: dict[int, tuple[Point, ...]]


def arrange(lines: Sequence[str], engine: Literal["dot", "neato"]) -> Arranged:
    """Lay out a graph of DOT.

    Args:
        lines: its statements, with names that need no quotes.
        engine: "dot" places nodes in rows; "neato" keeps their `pos` and finds ways for the edges.

    Raises:
        RuntimeError: the program is not there, or fails.
    """
    source = "\n".join(("digraph {", *lines, "}"))
    command = [_program(), f"-K{engine}", *(["-n2"] if engine == "neato" else []), "-Tjson0"]
    done = subprocess.run(command, input=source.encode(), capture_output=True, timeout=LONG, check=False)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()[:200]
        raise RuntimeError(f"picture: {PROGRAM} failed on {len(lines)} lines of DOT with {told!r}")
    found = json.loads(done.stdout)
    objects = found.get("objects", ())
    nodes = {o["name"]: _point(o["pos"]) for o in objects if "pos" in o}
    clusters = {o["name"]: _box(o["bb"]) for o in objects if o["name"].startswith("cluster") and "bb" in o}
    edges = {
        int(e["id"]): tuple(map(_point, e["pos"].split())) for e in found.get("edges", ()) if {"id", "pos"} <= {*e}
    }
    return Arranged(nodes, clusters, edges)


@cache
def _program() -> str:
    """The path of the program: where its wheel has put it, else among the scripts of this Python, else on the PATH."""
    try:
        listed = [Path(str(file.locate())) for file in files(PROGRAM) or () if file.stem == PROGRAM]
    except PackageNotFoundError:
        listed = []
    for path in listed:
        if path.is_file():
            return str(path)
    found = shutil.which(PROGRAM, path=sysconfig.get_path("scripts")) or shutil.which(PROGRAM)
    if found is None:
        raise RuntimeError(f"picture: found no program {PROGRAM}, which lays graphs out; try pip install {PROGRAM}")
    return found


def _point(text: str) -> Point:
    x, y = text.split(",")
    return float(x), -float(y)


def _box(text: str) -> Box:
    left, bottom, right, top = map(float, text.split(","))
    return left, -top, right, -bottom

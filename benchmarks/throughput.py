"""Measure how fast networks train here, and what share of the machine's convolutions that is.

python -m benchmarks.throughput [--arch cae] [--seconds 10] [--threads N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from linocut.lab.config.params import load_params
from linocut.lab.training.machine import pick_device
from linocut.lab.training.throughput import convolution_rate, measure

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", action="append", help="one of params.yaml's; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line of the table")
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    params = load_params(ROOT / "params.yaml")
    device = pick_device()
    rate = convolution_rate(device, options.seconds)
    rows = [
        row
        for architecture in options.arch or params.arch
        for row in measure(params, architecture, device, options.seconds)
    ]
    threads = torch.get_num_threads()
    print(f"training on {device}, {threads} threads; convolutions {rate / 1e9:.1f} GFLOP/s\n")
    heads = ("Mpx/s", "kFLOP/px", "GFLOP/s", "share")
    print(f"{'architecture':12} {'phase':8} " + " ".join(f"{head:>8}" for head in heads))
    for row in rows:
        flops = row.pixels_per_s * row.flop_per_pixel
        cells = row.pixels_per_s / 1e6, row.flop_per_pixel / 1e3, flops / 1e9
        numbers = f"{cells[0]:8.3f} {cells[1]:8.1f} {cells[2]:8.1f} {flops / rate:8.0%}"
        print(f"{row.architecture:12} {row.phase:8} {numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

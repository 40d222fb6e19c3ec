#!/usr/bin/env python3
"""The grid: kinds of model x file over memory, Hypura against plain llama.cpp under the same limit.

    bench/grid.py --build build --models FOLDER --out FOLDER [options]

Makes the models (random weights in the shapes of real ones, scaled by layers), then takes every cell once in each pass:
a bench of one run with --baseline, and what `estimate` said before. Passes follow one another until --passes or --seconds
are reached, so drift of the machine falls on all cells; figures are medians over the passes. Cells are kept as lines of
OUT/cells.jsonl as they come; OUT/table.md is made from all lines that are there, those of earlier calls included.

A whole grid takes an hour. --slice and --cells choose parts of it, --resume goes on where an earlier call with the same
--label ended:

    bench/grid.py ... --slice dense,experts --seconds 500 --resume
    bench/grid.py ... --cells "128 experts:2,dense:1.5" --passes 3 --no-baseline

Limits on memory need root (control groups); the bench says where it had none.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# name: shape, layers, route, file of routes
MODELS = {
    "dense": ("llama-8b", 10, None),
    "8 experts": ("mixtral-8x7b", 3, None),
    "128 experts": ("qwen3-30b-a3b", 8, "qwen3-30b-a3b.txt"),
    "64 experts": ("olmoe-1b-7b", 8, "olmoe-1b-7b.txt"),
}
RATIOS = [0.5, 0.9, 1.1, 1.5, 2, 4]
STREAMING = RATIOS[2:]

# What large matrices make of it comes first: those cells take longest.
SLICES = {
    "dense": [("dense", ratio) for ratio in STREAMING] + [("8 experts", 4)],
    "experts": [(kind, ratio) for ratio in (2, 1.5, 4, 1.1) for kind in ("128 experts", "64 experts", "8 experts")
                if (kind, ratio) != ("8 experts", 4)],
    "resident": [(kind, ratio) for kind in MODELS for ratio in RATIOS[:2]],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="folder of hypura and mkmodel")
    parser.add_argument("--models", required=True, help="folder for the models; those there are used")
    parser.add_argument("--out", required=True, help="folder for the figures")
    parser.add_argument("--traces", default="", help="folder of the routes; without it routing is that of random weights")
    parser.add_argument("--slice", default=",".join(SLICES), help="parts of the grid, in order: " + ", ".join(SLICES))
    parser.add_argument("--cells", default="", help="KIND:RATIO,...: these cells instead")
    parser.add_argument("--label", default="", help="what is measured, such as a version: kept with each cell")
    parser.add_argument("--resume", action="store_true", help="leave out what an earlier call with this label measured")
    parser.add_argument("--no-baseline", action="store_true", help="Hypura alone")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1e9, help="no cell begins later than this")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--type", default="", help="type of the weights (default: mkmodel's, Q4_K)")
    parser.add_argument("--layers", default="", help="KIND=N,...: other numbers of layers")
    parser.add_argument("--bench", default="", help="more options for every bench, as one word")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def make_model(args, kind):
    shape, layers, _ = MODELS[kind]
    for item in filter(None, args.layers.split(",")):
        name, n = item.split("=")
        layers = int(n) if name == kind else layers
    path = os.path.join(args.models, f"{shape}-{layers}l{'-' * bool(args.type)}{args.type}.gguf")
    if not os.path.exists(path):
        begin = time.time()
        words = [os.path.join(args.build, "mkmodel"), "shape", shape, path, "--layers", str(layers)]
        subprocess.run(words + (["--type", args.type] if args.type else []), check=True)
        say(f"made {path}: {os.path.getsize(path) / 1e9:.2f} GB in {time.time() - begin:.0f} s")
    return path


def run_json(words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        return {"failed": done.stderr.strip()[-300:]}
    return json.loads(done.stdout)


def measure(args, kind, path, ratio):
    hypura = os.path.join(args.build, "hypura")
    memory = int(os.path.getsize(path) / ratio)
    context = args.prompt_tokens + 2 * args.tokens
    threads = ["--threads", str(args.threads)] if args.threads else []
    estimate = run_json([hypura, "estimate", path, "--memory", str(memory), "--context", str(context), "--json"] + threads)
    bench = [hypura, "bench", path, "--memory", str(memory), "--runs", "1", "--json", "--tokens", str(args.tokens),
             "--prompt-tokens", str(args.prompt_tokens)] + threads + args.bench.split()
    bench += [] if args.no_baseline else ["--baseline"]
    route = MODELS[kind][2]
    if route and args.traces:
        # Prompts are longer than these routes, which begin anew: what comes was seen before, and
        # co-activation would foresee it as no real text is foreseen.
        bench += ["--route", os.path.join(args.traces, route), "--foresight", "off"]
    begin = time.time()
    found = run_json(bench)
    return {"label": args.label, "kind": kind, "model": os.path.basename(path), "file_bytes": os.path.getsize(path), "ratio": ratio,
            "memory_bytes": memory, "route": bool(route and args.traces), "seconds": round(time.time() - begin, 1),
            "estimate": estimate, "bench": found}


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def text(value, form):
    return "-" if value is None else format(value, form)


HEAD = ["model", "file / memory", "mode", "decode tok/s", "llama.cpp", "ratio", "prefill tok/s", "llama.cpp", "ratio", "hits",
        "share of bound: decode, prefill", "bound by", "a token: MB read; ms computing, waiting, reading would take",
        "estimate / measured", "runs"]


def row(kind, ratio, group):
    good = [g for g in group if "failed" not in g["bench"]]
    if not good:
        return [kind, f"{ratio:g}", "failed: " + group[0]["bench"]["failed"][-80:]] + [""] * (len(HEAD) - 3)
    found = [g["bench"]["cells"][0] for g in good]

    def of(key, series="hypura", times=1):
        value = median([(f.get(series) or {}).get(key) for f in found])
        return None if value is None else value * times

    def against(key):
        return median([f["hypura"][key] / f["baseline"][key] for f in found if f.get("baseline")])

    guesses = [g["estimate"]["decode_tok_s"] / g["bench"]["cells"][0]["hypura"]["decode_tok_s"] for g in good
               if g["estimate"].get("decode_tok_s")]
    token = [text(of("bytes_per_token", times=1e-6), ".1f") + ";"] + [
        text(of(key, times=1e3), ".1f") for key in ("compute_s", "read_wait_s", "storage_s")]
    return [kind, f"{ratio:g}", found[0].get("mode", "-"),
            text(of("decode_tok_s"), ".1f"), text(of("decode_tok_s", "baseline"), ".1f"), text(against("decode_tok_s"), ".2f"),
            text(of("prefill_tok_s"), ".0f"), text(of("prefill_tok_s", "baseline"), ".0f"),
            text(against("prefill_tok_s"), ".2f"), text(of("hit_rate_bytes"), ".2f"),
            text(of("bound_share"), ".2f") + ", " + text(of("prefill_bound_share"), ".2f"),
            found[0]["hypura"].get("bound_by") or "-", " ".join(token), text(median(guesses), ".2f"), str(len(good))]


def table(lines):
    """A table for each label, a row for each kind and ratio: medians over its lines."""
    labels = {}
    for line in lines:
        cells = labels.setdefault(line.get("label", ""), {})
        cells.setdefault((line["kind"], float(line["ratio"])), []).append(line)
    made = []
    for label, cells in labels.items():
        made += [label, ""] if len(labels) > 1 else []
        made += ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        last = None
        for kind, ratio in sorted(cells, key=lambda cell: (list(MODELS).index(cell[0]), cell[1])):
            made.append("| " + " | ".join(row("" if kind == last else kind, ratio, cells[kind, ratio])) + " |")
            last = kind
        made.append("")
    return "\n".join(made)


def chosen(args):
    """The cells of this call, in order."""
    if not args.cells:
        return [cell for name in args.slice.split(",") for cell in SLICES[name]]
    cells = [item.rsplit(":", 1) for item in args.cells.split(",")]
    return [(kind.strip(), float(ratio)) for kind, ratio in cells]


def read_lines(kept):
    if not os.path.exists(kept):
        return []
    with open(kept, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def times_measured(lines, label, kind, ratio):
    return sum(line.get("label", "") == label and line["kind"] == kind and float(line["ratio"]) == ratio
               and "failed" not in line["bench"] for line in lines)


def main():
    args = arguments()
    begin = time.time()
    os.makedirs(args.out, exist_ok=True)
    os.makedirs(args.models, exist_ok=True)
    kept = os.path.join(args.out, "cells.jsonl")
    cells = chosen(args)
    earlier = read_lines(kept) if args.resume else []
    for number in range(args.passes):
        for kind, ratio in cells:
            if times_measured(earlier, args.label, kind, ratio) > number:
                continue
            if time.time() - begin > args.seconds:
                break
            line = measure(args, kind, make_model(args, kind), ratio)
            with open(kept, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
            say(f"pass {number + 1}: {kind}, {ratio:g}: {line['seconds']} s"
                + (f", failed: {line['bench']['failed']}" if "failed" in line["bench"] else ""))
    made = table(read_lines(kept))
    with open(os.path.join(args.out, "table.md"), "w", encoding="utf-8") as out:
        out.write(made)
    print(made, end="")


main()

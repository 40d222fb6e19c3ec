#!/usr/bin/env python3
"""The grid: kinds of model x file over memory, Hypura against plain llama.cpp under the same limit.

    bench/grid.py --build build --models FOLDER --out FOLDER [options]

Makes the models (random weights in the shapes of real ones, scaled by layers), then takes every cell once in each pass:
a bench of one run with --baseline, and what `estimate` said before. Passes follow one another until --passes or --seconds
are reached, so drift of the machine falls on all cells; figures are medians over the passes. Cells are kept as lines of
OUT/cells.jsonl as they come; OUT/table.md is made from all lines that are there, those of earlier calls included.

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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="folder of hypura and mkmodel")
    parser.add_argument("--models", required=True, help="folder for the models; those there are used")
    parser.add_argument("--out", required=True, help="folder for the figures")
    parser.add_argument("--traces", default="", help="folder of the routes; without it routing is that of random weights")
    parser.add_argument("--kinds", default=",".join(MODELS), help="which kinds of model")
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)), help="file / memory")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1e9, help="no cell begins later than this")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
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
    path = os.path.join(args.models, f"{shape}-{layers}l.gguf")
    if not os.path.exists(path):
        begin = time.time()
        subprocess.run([os.path.join(args.build, "mkmodel"), "shape", shape, path, "--layers", str(layers)], check=True)
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
    bench = [hypura, "bench", path, "--memory", str(memory), "--baseline", "--runs", "1", "--json",
             "--tokens", str(args.tokens), "--prompt-tokens", str(args.prompt_tokens)] + threads + args.bench.split()
    route = MODELS[kind][2]
    if route and args.traces:
        bench += ["--route", os.path.join(args.traces, route)]
    begin = time.time()
    found = run_json(bench)
    return {"kind": kind, "model": os.path.basename(path), "file_bytes": os.path.getsize(path), "ratio": ratio,
            "memory_bytes": memory, "route": bool(route and args.traces), "seconds": round(time.time() - begin, 1),
            "estimate": estimate, "bench": found}


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def text(value, form):
    return "-" if value is None else format(value, form)


def table(lines):
    """A row for each kind and ratio: medians over its lines."""
    rows = ["| model | file / memory | mode | decode tok/s | llama.cpp | ratio | prefill tok/s | llama.cpp | ratio | hits | "
            "bound share decode, prefill | bound by | estimate / measured | runs |", "|---" * 14 + "|"]
    cells = {}
    for line in lines:
        cells.setdefault((line["kind"], line["ratio"]), []).append(line)
    for (kind, ratio), group in cells.items():
        good = [g for g in group if "failed" not in g["bench"]]
        if not good:
            rows.append(f"| {kind} | {ratio} | failed: {group[0]['bench']['failed'][-80:]} |" + " |" * 11)
            continue
        found = [g["bench"]["cells"][0] for g in good]

        def of(series, key):
            return median([(f.get(series) or {}).get(key) for f in found])

        decode, base = of("hypura", "decode_tok_s"), of("baseline", "decode_tok_s")
        prefill, prefill_base = of("hypura", "prefill_tok_s"), of("baseline", "prefill_tok_s")
        ratios = [f["hypura"]["decode_tok_s"] / f["baseline"]["decode_tok_s"] for f in found if f.get("baseline")]
        prefill_ratios = [f["hypura"]["prefill_tok_s"] / f["baseline"]["prefill_tok_s"] for f in found
                          if f.get("baseline")]
        guesses = [g["estimate"]["decode_tok_s"] / g["bench"]["cells"][0]["hypura"]["decode_tok_s"] for g in good
                   if g["estimate"].get("decode_tok_s")]
        rows.append("| " + " | ".join([
            kind, str(ratio), found[0].get("mode", "-"), text(decode, ".1f"), text(base, ".1f"),
            text(median(ratios), ".2f"), text(prefill, ".0f"), text(prefill_base, ".0f"),
            text(median(prefill_ratios), ".2f"), text(of("hypura", "hit_rate_bytes"), ".2f"),
            text(of("hypura", "bound_share"), ".2f") + ", " + text(of("hypura", "prefill_bound_share"), ".2f"),
            found[0]["hypura"].get("bound_by", "-"), text(median(guesses), ".2f"), str(len(good))]) + " |")
    return "\n".join(rows) + "\n"


def main():
    args = arguments()
    begin = time.time()
    os.makedirs(args.out, exist_ok=True)
    os.makedirs(args.models, exist_ok=True)
    kept = os.path.join(args.out, "cells.jsonl")
    kinds = args.kinds.split(",")
    ratios = [float(r) for r in args.ratios.split(",")]
    paths = {kind: make_model(args, kind) for kind in kinds}
    for number in range(args.passes):
        for kind in kinds:
            for ratio in ratios:
                if time.time() - begin > args.seconds:
                    break
                line = measure(args, kind, paths[kind], ratio)
                with open(kept, "a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
                say(f"pass {number + 1}: {kind}, {ratio}: {line['seconds']} s"
                    + (f", failed: {line['bench']['failed']}" if "failed" in line["bench"] else ""))
    with open(kept, encoding="utf-8") as lines:
        made = table([json.loads(line) for line in lines])
    with open(os.path.join(args.out, "table.md"), "w", encoding="utf-8") as out:
        out.write(made)
    print(made, end="")


main()

#!/usr/bin/env python3
"""Hypura with everything resident against llama-bench, in turn: ratio of rates in each round, and their median.

    bench/llama_bench.py --llama-bench PATH MODEL... [--build build] [--threads N] [--rounds N]

llama-bench decodes 64 tokens after 320 (-d), where `hypura bench` measures its second window of 64 after a prompt of
256; prompts are of 256 tokens on both sides, after a warm-up.
"""
import argparse
import json
import statistics
import subprocess

PROMPT, TOKENS = 256, 64


def llama_bench(program, model, threads, arguments):
    command = [program, "-m", model, "-t", str(threads), "-r", "1", "-o", "json", *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)[-1]["avg_ts"]


def hypura(build, model, threads):
    command = [f"{build}/hypura", "bench", model, "--resident", "--runs", "1", "--json", "--threads", str(threads),
               "--tokens", str(TOKENS), "--prompt-tokens", str(PROMPT)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return next(c for c in json.loads(out)["cells"] if c["mode"] == "resident")["hypura"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--build", default="build")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    for model in args.models:
        ratios = {"decode": [], "prefill": []}
        for _ in range(args.rounds):
            row = hypura(args.build, model, args.threads)
            decode = llama_bench(args.llama_bench, model, args.threads,
                                 ["-p", "0", "-n", str(TOKENS), "-d", str(PROMPT + TOKENS)])
            prefill = llama_bench(args.llama_bench, model, args.threads, ["-p", str(PROMPT), "-n", "0"])
            ratios["decode"].append(row["decode_tok_s"] / decode)
            ratios["prefill"].append(row["prefill_tok_s"] / prefill)
        for what, values in ratios.items():
            print(f"{model}: {what} {statistics.median(values):.3f}x llama-bench "
                  f"({min(values):.3f}-{max(values):.3f}), {len(values)} rounds")


if __name__ == "__main__":
    main()

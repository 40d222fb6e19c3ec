#!/usr/bin/env python3
"""What the programs do when their GPU is lost in the middle of an answer: on a device that stands for one (preload.c).

    lost.py HYPURA MKMODEL PRELOAD CACHE        CACHE: a cache folder with a profile of this machine

However a driver tells it, and whether experts are paged or all there: `run` ends with exit code 1 and names the GPU, having
printed nothing but the beginning of its answer; `serve` tells the client the same, and answers the next one through another engine.
"""
import json
import os
import re
import subprocess
import sys
import urllib.error

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import started

HYPURA, MKMODEL, PRELOAD, CACHE = map(os.path.abspath, sys.argv[1:5])
TOKENS = 250
PAGED, ALL_THERE = "26M", "1G"
MESSAGE = re.compile("Standin0 is lost.*on purpose")
EARLY_MESSAGE = re.compile("(Standin0|the GPU) is lost.*on purpose")
place = started.Place("hypura-lost-", CACHE)
path = place.path
LOSES = {"LD_PRELOAD": PRELOAD, "STANDIN_LOSE": path("lose")}


def lose(how):
    with open(path("lose.new"), "w", encoding="utf-8") as file:
        file.write(how)
    os.rename(path("lose.new"), path("lose"))


def run(vram, how=None, words=()):
    """Exit code, text, and what was said; how: the device is lost as soon as text comes."""
    with open(path("run.err"), "wb") as err:
        child = place.start(HYPURA, "run", path("m.gguf"), "w3 w4", "--gpu", "Standin0", "--vram", vram, "--max-tokens", str(TOKENS), "--temp", "0",
                            "--threads", "1", "--raw", *words, env=LOSES, stdout=subprocess.PIPE, stderr=err)
        text = os.read(child.stdout.fileno(), 1)
        if how:
            lose(how)
        text += child.stdout.read()
        code = child.wait(120)
    with open(path("run.err"), encoding="utf-8") as err:
        return code, text, err.read()


class Server(started.Server):
    def __init__(self, vram):
        super().__init__(place, HYPURA, "serve", path("m.gguf"), "--models", path("none"), "--gpu", "Standin0", "--vram", vram,
                         "--context", "4096", "--parallel", "1", env=LOSES)

    def answer(self, how=None):
        """Text, and the error behind it or None."""
        body = {"model": "m", "prompt": "w3 w4", "raw": True, "options": {"temperature": 0, "num_predict": TOKENS}}
        text = ""
        try:
            with self.open("/api/generate", json.dumps(body).encode()) as lines:
                for line in map(json.loads, lines):
                    if "error" in line:
                        return text, line["error"]
                    text += line["response"]
                    if how:
                        lose(how)
                        how = None
        except urllib.error.HTTPError as error:
            return text, error.read().decode()
        return text, None

    def figures(self):
        return self.ask("/metrics")[1]


def check_run(vram):
    code, whole, said = run(vram)
    assert code == 0 and len(whole) > 400, (code, whole)
    assert ("expert slots" in said) == (vram == PAGED), said
    lose("loading")
    code, text, said = run(vram)
    assert code == 1 and text == b"" and EARLY_MESSAGE.search(said) and "--gpu none" in said, (code, said)
    code, text, said = run(vram, "aborts", ["--plain"])
    assert code == 1 and EARLY_MESSAGE.search(said), (code, said)
    for how in ("aborts", "throws"):
        code, text, said = run(vram, how)
        assert code == 1 and MESSAGE.search(said) and "--gpu none" in said, (how, code, said)
        assert 0 < len(text) < len(whole) and whole.startswith(text.rstrip(b"\n")), (how, text)


def check_serve(vram):
    server = Server(vram)
    lose("loading")
    text, error = server.answer()
    assert text == "" and error and EARLY_MESSAGE.search(error), (error, server.read_log())
    whole, error = server.answer()
    assert error is None and len(whole) > 400, (error, whole)
    needed = re.search("gpu_needed_bytes_total{[^}]*} ([0-9]+)", server.figures())
    assert (int(needed[1]) > 0) == (vram == PAGED), server.figures()
    # An engine that has the prompt already computes its last token alone, which rounds otherwise.
    again, error = server.answer()
    assert error is None and len(again) > 400, (error, again)
    for n, how in enumerate(("aborts", "throws")):
        text, error = server.answer(how)
        assert error and MESSAGE.search(error) and "--gpu none" in error, (how, error, server.read_log())
        assert 0 < len(text) < len(again) and again.startswith(text), (how, text)
        assert server.answer() == (whole, None), (how, server.read_log())
        assert f"hypura_engines_died_total {n + 1}" in server.figures(), server.figures()
    server.stop()


with place:
    os.makedirs(path("none"))
    subprocess.run([MKMODEL, "shape", "qwen3-tiny", path("m.gguf")], check=True, stdout=subprocess.DEVNULL)
    place.run((check, limit) for check in (check_run, check_serve) for limit in (PAGED, ALL_THERE))

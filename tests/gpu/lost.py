#!/usr/bin/env python3
"""What the programs do when their GPU is lost in the middle of an answer: on a device that stands for one (preload.c).

    lost.py HYPURA MKMODEL PRELOAD CACHE        CACHE: a cache folder with a profile of this machine

However a driver tells it, and whether experts are paged or all there: `run` ends with exit code 1 and names the GPU, having
printed nothing but the beginning of its answer; `serve` tells the client the same, and answers the next one through another engine.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HYPURA, MKMODEL, PRELOAD, CACHE = map(os.path.abspath, sys.argv[1:5])
TOKENS = 700
PAGED, ALL_THERE = "26M", "1G"
MESSAGE = re.compile("Standin0 is lost.*on purpose")
EARLY_MESSAGE = re.compile("(Standin0|the GPU) is lost.*on purpose")
top = tempfile.mkdtemp(prefix="hypura-lost-")
started = []


def path(name):
    return os.path.join(top, name)


def start(*words, stdout, stderr):
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", "HYPURA_CACHE_DIR": path("cache"), "LD_PRELOAD": PRELOAD, "STANDIN_LOSE": path("lose")}
    child = subprocess.Popen(words, stdout=stdout, stderr=stderr, env=env)
    started.append(child)
    return child


def lose(how):
    with open(path("lose.new"), "w", encoding="utf-8") as file:
        file.write(how)
    os.rename(path("lose.new"), path("lose"))


def run(vram, how=None, words=()):
    """Exit code, text, and what was said; how: the device is lost as soon as text comes."""
    with open(path("run.err"), "wb") as err:
        child = start(HYPURA, "run", path("m.gguf"), "w3 w4", "--gpu", "Standin0", "--vram", vram, "--max-tokens", str(TOKENS), "--temp", "0",
                      "--threads", "1", "--raw", *words, stdout=subprocess.PIPE, stderr=err)
        text = os.read(child.stdout.fileno(), 1)
        if how:
            lose(how)
        text += child.stdout.read()
        code = child.wait(120)
    with open(path("run.err"), encoding="utf-8") as err:
        return code, text, err.read()


class Server:
    def __init__(self, vram):
        self.log = open(path("server.log"), "w+", encoding="utf-8")
        self.process = start(HYPURA, "serve", path("m.gguf"), "--port", "0", "--models", path("none"), "--no-ollama", "--gpu", "Standin0", "--vram",
                             vram, "--context", "4096", "--parallel", "1", "--threads", "1", stdout=self.log, stderr=self.log)
        while not (found := re.search(r"http://[0-9.]+:[0-9]+", self.read_log())):
            assert self.process.poll() is None, self.read_log()
            time.sleep(0.02)
        self.url = found[0]

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def answer(self, how=None):
        """Text, and the error behind it or None."""
        body = {"model": "m", "prompt": "w3 w4", "raw": True, "options": {"temperature": 0, "num_predict": TOKENS}}
        text = ""
        try:
            with urllib.request.urlopen(self.url + "/api/generate", data=json.dumps(body).encode(), timeout=300) as lines:
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
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as page:
            return page.read().decode()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0, self.read_log()
        self.log.close()


def check_run(vram):
    code, whole, said = run(vram)
    assert code == 0 and len(whole) > 1000, (code, whole)
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
    assert error is None and len(whole) > 1000, (error, whole)
    needed = re.search("gpu_needed_bytes_total{[^}]*} ([0-9]+)", server.figures())
    assert (int(needed[1]) > 0) == (vram == PAGED), server.figures()
    # An engine that has the prompt already computes its last token alone, which rounds otherwise.
    again, error = server.answer()
    assert error is None and len(again) > 1000, (error, again)
    for n, how in enumerate(("aborts", "throws")):
        text, error = server.answer(how)
        assert error and MESSAGE.search(error) and "--gpu none" in error, (how, error, server.read_log())
        assert 0 < len(text) < len(again) and again.startswith(text), (how, text)
        assert server.answer() == (whole, None), (how, server.read_log())
        assert f"hypura_engines_died_total {n + 1}" in server.figures(), server.figures()
    server.stop()


try:
    os.makedirs(path("cache"))
    os.makedirs(path("none"))
    shutil.copy(os.path.join(CACHE, "profile.json"), path("cache"))
    subprocess.run([MKMODEL, "shape", "qwen3-tiny", path("m.gguf")], check=True, stdout=subprocess.DEVNULL)
    for check in (check_run, check_serve):
        for limit in (PAGED, ALL_THERE):
            begin = time.time()
            check(limit)
            print(f"{check.__name__} {limit}: ok, {time.time() - begin:.1f} s", flush=True)
finally:
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()
    shutil.rmtree(top, ignore_errors=True)

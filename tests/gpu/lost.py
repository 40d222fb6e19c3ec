#!/usr/bin/env python3
"""What the programs do when their GPU is lost in the middle of an answer: on a device that stands for one (preload.c).

    lost.py HYPURA MKMODEL PRELOAD CACHE [silent|vulkan]     CACHE: a cache folder with a profile of this machine

However a driver tells it, and whether experts are paged or all there: `run` ends with exit code 1 and names the GPU, having
printed nothing but the beginning of its answer; `serve` tells the client the same, and answers the next one through another engine.
silent: the same where no wait for it ever ends, whether it tells when it is asked or not; and one that is slow is not lost. Nor do
the programs wait for one that says nothing when it is listed or measured, and what leaves it out works.
vulkan: over Mesa's Vulkan device, to which PRELOAD is a driver that does not say that it has lost its device (fence.c).
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
KIND = sys.argv[5] if len(sys.argv) > 5 else "loud"
GPU = "Vulkan0" if KIND == "vulkan" else "Standin0"
TOKENS = 12 if KIND == "vulkan" else 30  # of which a text is a beginning of the whole one
LEAST = TOKENS * 8 // 5
PAGED, ALL_THERE = "26M", "1G"
MESSAGE = re.compile(f"{GPU} is lost.*on purpose")
EARLY_MESSAGE = re.compile(f"({GPU}|the GPU) is lost.*on purpose")
place = started.Place("hypura-lost-", CACHE)
path = place.path
LOADED = {"LD_PRELOAD": PRELOAD, **({} if KIND == "vulkan" else started.NO_DRIVERS)}
LOSES = {**LOADED, "STANDIN_LOSE": path("lose"), "STANDIN_PACE_US": "10000"}
if KIND != "loud":
    LOSES["HYPURA_GPU_SECONDS"] = "9" if KIND == "vulkan" else "5"  # asked after a third of it
SIGNS = {"silent": "gave none for", "told": "it failed.*(silent on purpose|ErrorDeviceLost)"}


def says_silence(said, how):
    """The GPU, what was waited for and for how long, what it said then, and what to try."""
    kind = how.removeprefix("loading-")
    what = "for the model to be loaded" if kind != how else "for tokens to be computed"
    return re.search(f"{GPU} is lost.*--gpu none: in [1-9][0-9]* s of waiting {what}: asked for a sign of life, .*{SIGNS[kind]}", said)


def lose(how):
    with open(path("lose.new"), "w", encoding="utf-8") as file:
        file.write(how)
    os.rename(path("lose.new"), path("lose"))


def run(vram, how=None, words=()):
    """Exit code, text, and what was said; how: the device is lost as soon as text comes."""
    with open(path("run.err"), "wb") as err:
        child = place.start(HYPURA, "run", path("m.gguf"), "w3 w4", "--gpu", GPU, "--vram", vram,
                            "--max-tokens", str(TOKENS), "--temp", "0", "--threads", "1", "--raw", *words,
                            env=LOSES, stdout=subprocess.PIPE, stderr=err)
        text = os.read(child.stdout.fileno(), 1)
        if how:
            lose(how)
        text += child.stdout.read()
        code = child.wait(120)
    with open(path("run.err"), encoding="utf-8") as err:
        return code, text, err.read()


class Server(started.Server):
    def __init__(self, vram):
        super().__init__(place, HYPURA, "serve", path("m.gguf"), "--models", path("none"), "--gpu", GPU, "--vram", vram,
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
    assert code == 0 and len(whole) > LEAST, (code, whole)
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
    assert error is None and len(whole) > LEAST, (error, whole)
    needed = re.search("gpu_needed_bytes_total{[^}]*} ([0-9]+)", server.figures())
    assert (int(needed[1]) > 0) == (vram == PAGED), server.figures()
    # An engine that has the prompt already computes its last token alone, which rounds otherwise.
    again, error = server.answer()
    assert error is None and len(again) > LEAST, (error, again)
    experts = path("cache", "m.gguf.experts")
    for n, how in enumerate(("aborts", "throws")):
        if os.path.exists(experts):
            os.unlink(experts)
        text, error = server.answer(how)
        # What was learned until then is kept.
        assert os.path.exists(experts) == (vram == PAGED), (how, os.listdir(path("cache")))
        assert error and MESSAGE.search(error) and "--gpu none" in error, (how, error, server.read_log())
        assert 0 < len(text) < len(again) and again.startswith(text), (how, text)
        assert server.answer() == (whole, None), (how, server.read_log())
        assert f"hypura_engines_died_total {n + 1}" in server.figures(), server.figures()
    server.stop()


def check_silent_run(vram, hows):
    experts = path("cache", "m.gguf.experts")
    code, whole, said = run(vram)
    assert code == 0 and len(whole) > LEAST, (code, whole)
    for how in hows:
        if os.path.exists(experts):
            os.unlink(experts)
        loads = how.startswith("loading")
        if loads:
            lose(how)
        code, text, said = run(vram, None if loads else how)
        if how == "slow":
            assert (code, text) == (0, whole), (code, said)
            continue
        assert code == 1 and says_silence(said, how), (how, code, said)
        assert whole.startswith(text) and (text == b"" if loads else 0 < len(text) < len(whole)), (how, text)
        # What was learned until then is kept.
        assert os.path.exists(experts) == (vram == PAGED and not loads), (how, os.listdir(path("cache")))


def check_silent_serve(vram, hows):
    server = Server(vram)
    lose("loading-silent")
    text, error = server.answer()
    assert text == "" and error and says_silence(error, "loading-silent"), (error, server.read_log())
    whole, error = server.answer()
    assert error is None and len(whole) > LEAST, (error, whole)
    again, error = server.answer()  # as in check_serve
    assert error is None and len(again) > LEAST, (error, again)
    for n, how in enumerate(hows):
        text, error = server.answer(how)
        assert error and says_silence(error, how), (how, error, server.read_log())
        assert 0 < len(text) < len(again) and again.startswith(text), (how, text)
        assert server.answer() == (whole, None), (how, server.read_log())
        assert f"hypura_engines_died_total {n + 1}" in server.figures(), server.figures()
    server.stop()


def end(*words, cache="cache", seconds="300"):
    """Exit code, text, and what was said, of a program that waits so long for a GPU."""
    env = {**LOSES, "HYPURA_GPU_SECONDS": seconds, "HYPURA_CACHE_DIR": path(cache)}
    child = place.start(HYPURA, *words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = child.communicate(timeout=120)
    return child.returncode, said[0].decode(), said[1].decode()


def is_told(result, what, gpu=GPU):
    code, _, said = result
    return code == 1 and re.search(f"{gpu} is lost.*--gpu none: in [1-9][0-9]* s of waiting {what} "
                                   "it gave no sign of life .HYPURA_GPU_SECONDS", said)


def check_measured(how):
    """It says nothing from when it is measured on, by itself or on the way to a plan."""
    os.makedirs(path("fresh"))
    with open(path("cache", "profile.json"), encoding="utf-8") as profile:
        stored = json.load(profile)
    for one in stored["profiles"]:
        one["gpus"] = []
    with open(path("fresh", "profile.json"), "w", encoding="utf-8") as profile:
        json.dump(stored, profile)
    known = re.compile(f'"name": "{GPU}"')
    for words in (("profile",), ("inspect", path("m.gguf"), "--plan", "--gpu", GPU)) if KIND != "vulkan" else (("profile",),):
        lose(how)
        found = end(*words, cache="fresh", seconds=LOSES["HYPURA_GPU_SECONDS"])
        assert is_told(found, "for it to be measured"), (words, found)
    for words in (("profile", "--gpu", "none"), ("run", path("m.gguf"), "w3", "--raw", "--gpu", "none", "--max-tokens", "2")):
        code, text, said = end(*words, cache="fresh")
        assert code == 0 and GPU not in text, (code, text, said)
    with open(path("fresh", "profile.json"), encoding="utf-8") as profile:
        assert not known.search(profile.read())
    code, text, said = end("profile", "--gpu", "Standin7", cache="fresh")
    assert code == 2 and "no GPU Standin7" in said, (code, said)
    code, text, said = end("profile", "--gpu", GPU, cache="fresh")
    assert code == 0 and f"{GPU}: " in text and (KIND == "vulkan" or "Standin2: " not in text), (code, text, said)
    with open(path("fresh", "profile.json"), encoding="utf-8") as profile:
        assert known.search(profile.read())


def check_asked():
    """It does not say what memory it has."""
    lose("asked")
    for words in (("run", path("m.gguf"), "w3"), ("profile",), ("inspect", path("m.gguf"), "--plan", "--gpu", GPU)):
        found = end(*words, seconds=LOSES["HYPURA_GPU_SECONDS"])
        assert is_told(found, "for what it says of itself"), (words, found)
    code, text, said = end("run", path("m.gguf"), "w3", "--raw", "--gpu", "none", "--max-tokens", "2")
    assert code == 0, (code, said)
    server = Server(PAGED)
    text, error = server.answer()
    assert text == "" and error and is_told((1, "", error), "for what it says of itself"), (error, server.read_log())
    os.unlink(path("lose"))
    text, error = server.answer()
    assert error is None and len(text) > LEAST, (error, server.read_log())
    server.stop()


with place:
    os.makedirs(path("none"))
    subprocess.run([MKMODEL, "shape", "qwen3-tiny", path("m.gguf")], check=True, stdout=subprocess.DEVNULL)
    # The GPU is measured with patience, and as fast as it is.
    known = place.start(HYPURA, "profile", "--gpu", GPU, env=LOADED, stdout=subprocess.DEVNULL)
    assert known.wait(120) == 0
    if KIND == "vulkan":
        place.run([(check_silent_run, PAGED, ("told", "silent")), (check_measured, "silent")])
    elif KIND == "silent":
        place.run(((check_silent_run, PAGED, ("told", "silent", "slow", "loading-told")),
                   (check_silent_run, ALL_THERE, ("told", "slow", "loading-silent")),
                   (check_silent_serve, PAGED, ("silent", "told")),
                   (check_measured, "loading-silent"), (check_asked,)))
    else:
        place.run((check, limit) for check in (check_run, check_serve) for limit in (PAGED, ALL_THERE))

#!/usr/bin/env python3
"""Models that share a GPU's memory in one server: on a device that stands for one, which all its processes share (preload.c).

    fleet.py HYPURA MKMODEL PRELOAD CACHE        CACHE: a cache folder with a profile of this machine

Two mixtures, each of which would take WANTED of it alone. Whatever is free, both answer as they do alone, what they take together
is never more than that, and nothing is taken that would end an engine.
"""
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import started

HYPURA, MKMODEL, PRELOAD, CACHE = map(os.path.abspath, sys.argv[1:5])
MARGIN = 768 << 20  # what every engine leaves free
TOKENS = 40
REST_S = 3  # that a model is unused before it is loaded anew
place = started.Place("hypura-fleet-", CACHE)
path = place.path


class Server(started.Server):
    """usable: of the GPU's memory, for models."""

    def __init__(self, usable, *words):
        if os.path.exists(path("shared")):
            os.unlink(path("shared"))
        self.usable = usable
        super().__init__(place, HYPURA, "serve", path("a.gguf"), path("b.gguf"), "--models", path("none"),
                         "--gpu", "Standin0", "--context", "1024",
                         "--parallel", "1", "--memory", "2G", "--state-limit", "0", *words,
                         env={**started.NO_DRIVERS, "LD_PRELOAD": PRELOAD, "STANDIN_SHARED": path("shared"),
                              "STANDIN_BYTES": str(MARGIN + usable)})

    def answer(self, model, tokens=TOKENS, **more):
        body = {"model": model, "prompt": "w3 w4", "raw": True, "stream": False,
                "options": {"temperature": 0, "num_predict": tokens}, **more}
        try:
            with urllib.request.urlopen(self.url + "/api/generate", data=json.dumps(body).encode(), timeout=120) as reply:
                return json.load(reply)["response"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode() + self.read_log()) from error

    def unload(self, model):
        self.answer(model, keep_alive=0, tokens=1)
        while model in self.loaded():
            time.sleep(0.05)

    def loaded(self):
        """What each takes of the GPU's memory."""
        with urllib.request.urlopen(self.url + "/api/ps", timeout=60) as reply:
            taken = {one["name"].split(":")[0]: one["size_vram"] for one in json.load(reply)["models"]}
        assert sum(taken.values()) <= self.usable, (taken, self.usable)
        return taken

    def loads_anew(self, model, more_than):
        """Its memory, once that is more."""
        until = time.time() + REST_S + 30
        while (taken := self.loaded().get(model, 0)) <= more_than:
            assert time.time() < until, self.read_log()
            time.sleep(0.1)
        return taken

    def stop(self):
        log = self.read_log()
        assert " failed" not in log and "died" not in log and "is not loaded any more" not in log, log
        super().stop()


def alone():
    """What each takes, its text, and the text of those that have the prompt already: its last token alone rounds otherwise."""
    server = Server(4 << 30)
    texts = {name: server.answer(name) for name in "ab"}
    again = server.answer("a")
    taken = server.loaded()
    server.stop()
    assert taken["a"] == taken["b"] > 0 and len(texts["a"]) > 50, (taken, texts)
    return taken["a"], texts, again


def both_fit():
    server = Server(2 * WANTED + WANTED // 4)
    assert {name: server.answer(name) for name in "ab"} == TEXTS
    assert server.loaded() == {"a": WANTED, "b": WANTED}, server.loaded()
    server.stop()


def the_second_takes_what_is_left_and_grows_back():
    server = Server(WANTED + WANTED * 6 // 10)
    assert server.answer("a") == TEXTS["a"]
    assert server.answer("b") == TEXTS["b"]
    taken = server.loaded()
    assert taken["a"] == WANTED and WANTED // 2 <= taken["b"] <= WANTED * 6 // 10, taken
    server.unload("a")
    assert server.loads_anew("b", taken["b"]) == WANTED
    assert server.answer("b") == TEXTS["b"]
    assert "unloaded" in server.read_log()
    server.stop()


def those_that_take_turns_have_half_each(server=None, usable=None):
    server = server or Server(WANTED + WANTED // 5)
    server.usable = usable or server.usable
    for name in "aba":
        assert server.answer(name) == TEXTS[name], name
    for name in "bab":
        assert server.answer(name) == AGAIN, name
    taken = server.loaded()
    assert set(taken) == {"a", "b"} and min(taken.values()) >= WANTED // 2, taken
    assert server.read_log().count("unloaded") == 1, server.read_log()
    server.stop()


def one_that_is_used_is_waited_for():
    server = Server(WANTED + WANTED // 5)
    ended = []
    busy = threading.Thread(target=lambda: ended.append(server.answer("a", tokens=600)) or ended.append(time.time()))
    busy.start()
    while server.loaded().get("a") != WANTED:
        time.sleep(0.02)
    assert server.answer("b") == TEXTS["b"]
    answered = time.time()
    busy.join()
    assert len(ended) == 2 and ended[0].startswith(TEXTS["a"]) and ended[1] < answered, (ended, answered)
    server.stop()


def a_limit_is_one_on_all():
    limit = WANTED + WANTED * 6 // 10
    server = Server(64 * WANTED, "--vram", str(limit))
    server.usable = limit
    assert {name: server.answer(name) for name in "ab"} == TEXTS
    taken = server.loaded()
    assert taken["a"] == WANTED and WANTED // 2 <= taken["b"] < WANTED, taken
    server.stop()
    those_that_take_turns_have_half_each(Server(64 * WANTED, "--vram", str(WANTED + WANTED // 5)), WANTED + WANTED // 5)


with place:
    os.makedirs(path("none"))
    for model in "ab":
        subprocess.run([MKMODEL, "shape", "qwen3-tiny", path(f"{model}.gguf")], check=True, stdout=subprocess.DEVNULL)
    WANTED, TEXTS, AGAIN = alone()
    print(f"each takes {WANTED / 2**20:.1f} MiB alone", flush=True)
    place.run((check,) for check in (both_fit, the_second_takes_what_is_left_and_grows_back, those_that_take_turns_have_half_each,
                                     one_that_is_used_is_waited_for, a_limit_is_one_on_all))

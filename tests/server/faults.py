#!/usr/bin/env python3
"""What a server does when the disk is full or its files go: the program itself, on a tiny model, with a hub on loopback.

    faults.py HYPURA MKMODEL FAKE_HUB CACHE        CACHE: a cache folder with a profile of this machine

A full disk is a limit on the size of files; with the right to mount, a small file system as well. Descriptors and models are
counted afterwards: nothing may be lost or left behind.
"""
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import started

HYPURA, MKMODEL, FAKE_HUB, CACHE = map(os.path.abspath, sys.argv[1:5])
MIB = 1 << 20
place = started.Place("hypura-faults-", CACHE)
path = place.path


class Server(started.Server):
    """Over a models folder; most_bytes limits what a file may grow to. before: words that start it."""

    def __init__(self, models, *options, most_bytes=None, before=(), cache=None):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if most_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        super().__init__(place, *before, HYPURA, "serve", "--models", models, "--memory", "700M", "--context", "256", *options,
                         preexec_fn=limit, env={"HYPURA_CACHE_DIR": cache or path("cache")})

    def ask(self, route, body=None, data=None, method=None):
        return super().ask(route, json.dumps(body).encode() if body is not None else data, method)

    def models(self):
        return sorted(model["name"] for model in json.loads(self.ask("/api/tags")[1])["models"])

    def chat(self, model, tokens=8):
        return self.ask("/api/chat", {"model": model, "stream": False, "options": {"num_predict": tokens, "temperature": 0},
                                      "messages": [{"role": "user", "content": "w3 w4"}]})

    def descriptors(self):
        """How many are open; the server may close that of an answered request a little later."""
        def count():
            time.sleep(0.01)
            return len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return min(count() for _ in range(10))

    def loaded(self):
        return [model["name"] for model in json.loads(self.ask("/api/ps")[1])["models"]]


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(here, name), folder) for here, _, names in os.walk(folder) for name in names)


def check_full_disk(models, server, what):
    """Pull, create, and a blob on a disk with room for less: each fails, says so, and leaves what was there."""
    before = server.models()
    code, text = server.ask("/api/pull", {"model": "hf.co/user/repo", "stream": False})
    assert code == 500 and "free" in text and "needs" in text, (what, code, text)
    code, text = server.ask("/api/pull", {"model": "hf.co/user/repo"})
    assert code == 200 and '"error"' in text.splitlines()[-1], (what, text)
    code, text = server.ask("/api/create", {"model": "tiny", "from": path("import", "big.gguf"), "stream": False})
    assert code == 500 and "free" in text, (what, code, text)
    data = b"x" * (6 * MIB)
    code, text = server.ask("/api/blobs/sha256:" + hashlib.sha256(data).hexdigest(), data=data)
    assert code == 500 and "free" in text, (what, code, text)
    assert server.models() == before, what
    kept = files_below(models)
    assert [name for name in kept if name.startswith((".staging", ".blobs"))] == [], (what, kept)
    # This drive was never measured, and there is no room for a file to measure it with: the model itself is read.
    code, text = server.chat("tiny")
    assert code == 200 and json.loads(text)["done"], (what, text)


def full_disk():
    models = path("models")
    hub_path = path("hub", "user", "repo")
    os.makedirs(hub_path)
    os.makedirs(path("import"))
    subprocess.run([MKMODEL, "shape", "qwen3-tiny", path("import", "big.gguf"), "--type", "q4_1"], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(path("import", "big.gguf"), hub_path)
    hub = place.start(sys.executable, FAKE_HUB, path("hub"), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    url = "http://127.0.0.1:" + hub.stdout.readline().strip()
    options = ("--hub", url, "--import", path("import"))
    server = Server(models, *options, most_bytes=4 * MIB)
    # On the same file system a model is linked, which needs no room.
    code, text = server.ask("/api/create", {"model": "linked", "from": path("import", "big.gguf"), "stream": False})
    assert code == 200, text
    assert server.ask("/api/delete", {"model": "linked"}, method="DELETE")[0] == 200
    before = server.models()
    code, text = server.ask("/api/pull", {"model": "hf.co/user/repo", "stream": False})
    assert code == 500 and "free" in text and "needs" in text, (code, text)
    data = b"x" * (6 * MIB)
    code, text = server.ask("/api/blobs/sha256:" + hashlib.sha256(data).hexdigest(), data=data)
    assert code == 500 and "free" in text, (code, text)
    assert server.models() == before
    server.stop()
    # With room again the pull goes on from what came.
    server = Server(models, *options)
    code, text = server.ask("/api/pull", {"model": "hf.co/user/repo"})
    assert code == 200 and json.loads(text.splitlines()[-1]) == {"status": "success"}, text
    with open(path("hub", "log"), encoding="utf-8") as log:
        assert f"bytes={4 * MIB}-" in log.read(), "the pull began anew"
    assert "hf.co/user/repo:latest" in server.models()
    server.stop()

    small = path("small")
    os.makedirs(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", small], capture_output=True).returncode != 0:
        print("no right to mount: the small file system is left out")
        return
    try:
        shutil.copy(path("models", "tiny.gguf"), small)
        server = Server(small, *options)
        check_full_disk(small, server, "small file system")
        server.stop()
    finally:
        subprocess.run(["umount", small], check=True)


def state_on_a_full_disk():
    """The states of conversations cannot be written: answers come all the same, and are the same."""
    models = path("models")
    server = Server(models)
    expected = json.loads(server.chat("tiny", 32)[1])["message"]
    server.stop()
    server = Server(models, most_bytes=12288)
    for _ in range(3):
        code, text = server.chat("tiny", 32)
        assert code == 200 and json.loads(text)["message"] == expected, (code, text)
    assert server.ask("/api/generate", {"model": "tiny", "keep_alive": 0})[0] == 200
    code, text = server.chat("tiny", 32)
    assert code == 200 and json.loads(text)["message"] == expected, (code, text)
    server.stop()


def engine_that_says_much():
    """Drivers print what they like before the engine says what a model takes: more than a pipe holds is no reason to wait."""
    with open(path("engine"), "w", encoding="utf-8") as script:
        script.write(f'#!/bin/sh\nyes "a warning of a driver" | head -n 10000 >&2\nexec "{os.path.dirname(HYPURA)}/hypura-engine" "$@"\n')
    os.chmod(path("engine"), 0o755)
    server = Server(path("models"), "--engine", path("engine"))
    code, text = server.chat("tiny")
    assert code == 200 and json.loads(text)["done"], (code, text)
    server.stop()


def full_folder_of_sockets():
    """Nothing more can be written to /tmp, where engines have their sockets: a request fails, and the server goes on."""
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True).returncode != 0:
        print("no right to mount: the full /tmp is left out")
        return
    if HYPURA.startswith("/tmp/") or os.getcwd().startswith("/tmp/"):
        print("the program lies in /tmp, which is to be another one: the full /tmp is left out")
        return
    own = tempfile.mkdtemp(prefix="hypura-faults-", dir=os.getcwd()) # /tmp is another one for the server
    try:
        shutil.copy(path("models", "tiny.gguf"), own)
        shutil.copytree(path("cache"), os.path.join(own, "cache"))
        server = Server(own, before=["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /tmp && exec "$@"', "sh"],
                        cache=os.path.join(own, "cache"))
        full = f"/proc/{server.process.pid}/root/tmp/full"
        with open(full, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        code, text = server.chat("tiny")
        assert code == 500 and "No space left" in text and "/tmp/" in text, (code, text)
        os.unlink(full)
        code, text = server.chat("tiny")
        assert code == 200, (code, text)
        server.stop()
    finally:
        shutil.rmtree(own)


def file_deleted_while_serving():
    models = path("models")
    shutil.copy(path("models", "tiny.gguf"), path("models", "gone.gguf"))
    server = Server(models, "--weights", "60%")
    expected = json.loads(server.chat("gone")[1])["message"]
    results = []
    threads = [threading.Thread(target=lambda: results.append(server.chat("gone", 200))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    os.unlink(path("models", "gone.gguf"))
    for thread in threads:
        thread.join()
    # What was under way had the file open.
    for code, text in results:
        assert code == 200 and json.loads(text)["done"], (code, text)
    # From now on it is not there, for anybody.
    code, text = server.chat("gone")
    assert code == 404 and "gone" in text, (code, text)
    assert "gone:latest" not in server.models()
    code, text = server.ask("/api/show", {"model": "gone"})
    assert code == 404, (code, text)
    counts = [server.descriptors()]
    while len(counts) < 2 or counts[-1] > counts[-2]:
        # Another one takes its place, with other contents, and is loaded anew.
        shutil.copy(path("import", "big.gguf"), path("models", "gone.gguf"))
        code, text = server.chat("gone")
        assert code == 200 and json.loads(text)["message"] != expected, text
        # Deleted through the API it is gone as well, and its engine with it.
        assert server.ask("/api/delete", {"model": "gone"}, method="DELETE")[0] == 200
        assert server.chat("gone")[0] == 404
        for _ in range(500):
            if server.loaded() == []:
                break
            time.sleep(0.02)
        assert server.loaded() == []
        # A thread of the server keeps its last connection to an engine, and may be a new one: what is lost is lost each time.
        counts.append(server.descriptors())
        assert len(counts) < 12, f"descriptors after one model after the other: {counts}"
    server.stop()


with place:
    os.makedirs(path("models"))
    subprocess.run([MKMODEL, "shape", "llama-tiny", path("models", "tiny.gguf"), "--type", "q4_1"], check=True, stdout=subprocess.DEVNULL)
    place.run((check,) for check in (full_disk, state_on_a_full_disk, full_folder_of_sockets, engine_that_says_much,
                                     file_deleted_while_serving))

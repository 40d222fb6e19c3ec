#!/usr/bin/env python3
"""`hypura run` with a model that is not here: it is pulled from a hub on loopback, and what is broken off goes on.

    pulled.py HYPURA MKMODEL FAKE_HUB CACHE        CACHE: a cache folder with a profile of this machine
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HYPURA, MKMODEL, FAKE_HUB, CACHE = map(os.path.abspath, sys.argv[1:5])
NAME = "hf.co/user/repo:Q8_0"
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in the background of a shell has it ignored, with its children


def main(top):
    repository = top / "hub" / "user" / "repo"
    repository.mkdir(parents=True)
    subprocess.run([MKMODEL, "tiny", top / "made"], check=True, stdout=subprocess.DEVNULL)
    model = top / "made" / "dense-tied-q8_0.gguf"
    (repository / "small-Q8_0.gguf").write_bytes(model.read_bytes())
    size = model.stat().st_size
    hub = subprocess.Popen(["python3", FAKE_HUB, top / "hub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{hub.stdout.readline().strip()}"
    # The registry of Ollama's names cannot be reached from here.
    environment = {**os.environ, "HYPURA_CACHE_DIR": CACHE, "HYPURA_MODELS": str(top / "models"), "OLLAMA_MODELS": str(top / "none"),
                   "HF_ENDPOINT": address, "OMP_WAIT_POLICY": "passive", "no_proxy": "127.0.0.1"}
    environment.pop("HF_HUB_OFFLINE", None)

    def start(*words, **more):
        return subprocess.Popen([HYPURA, *words], env={**environment, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, errors="replace")

    def run(*words, code=0, **more):
        child = start(*words, **more)
        out, told = child.communicate(timeout=120)
        assert child.returncode == code, (words, child.returncode, told)
        return out, told

    def ask(*words, **more):
        return run("run", NAME, "--prompt", "w3 w4", "--raw", "--temp=0", "--max-tokens=4", "--threads=1", *words, **more)

    def requests():
        with open(top / "hub" / "log", encoding="utf-8") as log:
            return log.read().splitlines()

    # Nothing is fetched where that is not wanted.
    for words, more in (("--offline",), {}), ((), {"HF_HUB_OFFLINE": "1"}):
        assert "no model 'hf.co/user/repo:Q8_0'" in ask(*words, code=1, **more)[1]
    assert not (top / "hub" / "log").exists()

    # Broken off by Ctrl-C: what came is kept, counted, and not fetched again.
    (repository / "faults.json").write_text(json.dumps({"bytes_per_s": size // 20}))
    child = start("run", NAME, "--prompt", "w3 w4")
    part = None
    while not part or part.stat().st_size < size // 40:
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
        part = next(iter((top / "models" / ".partial").glob("sha256-*")), None) if (top / "models" / ".partial").exists() else None
    # Nobody takes it away meanwhile.
    assert "removed 0 files" in run("remove", "--unused")[1]
    child.send_signal(signal.SIGINT)
    out, told = child.communicate(timeout=30)
    assert (child.returncode, out) == (1, ""), (child.returncode, out, told)
    assert "pulling hf.co/user/repo:Q8_0, " in told and "into " + str(top / "models") in told and "stopped" in told, told
    came = part.stat().st_size
    assert 0 < came < size
    assert "could be freed (hypura remove --unused)" in run("list")[1]
    (repository / "faults.json").write_text(json.dumps({"bytes_per_s": size // 2}))
    out, told = ask()
    assert "are there already" in told and "\npulling hf.co/user/repo:Q8_0: " in told, told
    assert any(line.endswith(f"Range: bytes={came}-") or f"bytes={came}-" in line for line in requests()), requests()
    assert "could be freed" not in run("list")[1]

    # Pulled, it is a model as others are: nobody is asked again.
    n_before = len(requests())
    again, told = ask("--offline")
    assert again == out and "pulling" not in told, told
    assert out == run("run", str(model), "--prompt", "w3 w4", "--raw", "--temp=0", "--max-tokens=4", "--threads=1")[0]
    assert len(requests()) == n_before

    # What is not there, there or here, is told; a file is not looked for elsewhere.
    assert "is here, and it cannot be pulled: " in run("run", "hf.co/user/none", "--prompt", "a", code=1)[1]
    assert "hypura pull fetches one" in run("run", "user/none.gguf", "--prompt", "a", code=1)[1]

    # A part that is removed is begun anew.
    (repository / "faults.json").write_text(json.dumps({"drop_after": size // 3, "status": 404, "times": 0}))
    run("remove", "hf.co/user/repo:Q8_0")
    (top / "models" / ".partial").mkdir(exist_ok=True)
    part.write_bytes(b"x" * 1000)
    assert "removed 1 file that no model uses" in run("remove", "--unused")[1]
    assert ask()[0] == out
    hub.stdin.close()
    assert hub.wait(timeout=30) == 0


with tempfile.TemporaryDirectory(prefix="hypura-pulled-") as folder:
    main(pathlib.Path(folder))
print("run pulls what is not here")

"""A server for tests: started on a port of its own, with models of its own, asked, and ended with everything it started."""
import functools
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

BUILD = os.environ["HYPURA_BUILD"]
CACHE = os.path.join(BUILD, "tests", "clients-cache")
HYPURA = os.path.join(BUILD, "hypura")
WAITING = os.environ.get("OMP_WAIT_POLICY", "passive")  # spinning threads hurt where others work
NO_POLICY = "none"  # as a value of OMP_WAIT_POLICY: what the server itself starts its engines with
DENSE = "smollm2-135m"
MOE = "smollm2-8x135m"
WORDS = "words"  # for all that is not about what a model says: made.py
WORDS_MOE = "moe-words"


def user(text):
    return [{"role": "user", "content": text}]


STORY = {"model": WORDS, "messages": user("Write a long story."), "options": {"num_predict": 4000, "temperature": 0}}
SHORT = {"model": WORDS, "messages": user("hi"), "stream": False, "options": {"num_predict": 2}}


def make_cache(folder):
    """A cache folder with the profile of this machine that all tests share, if one was made."""
    os.makedirs(folder, exist_ok=True)
    profile = os.path.join(BUILD, "tests", "hypura-cache", "profile.json")
    if os.path.exists(profile):
        shutil.copy(profile, folder)
    return folder


def model_path(name):
    return os.path.join(BUILD, *(("tests", "words") if name in (WORDS, WORDS_MOE) else ("models",)), name + ".gguf")


os.environ["HYPURA_CACHE_DIR"] = make_cache(CACHE)  # of all that tests start: the user's is not touched


class Server:
    """hypura serve with the models given; options are those of the command. ollama: a folder of Ollama's models."""

    def __init__(self, *options, models=(WORDS, WORDS_MOE), folder=None, env=None, ollama=None):
        self.owned = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="hypura-test-")
        self.models = os.path.join(self.folder, "models")
        os.makedirs(self.models, exist_ok=True)
        for name in models:
            link = os.path.join(self.models, name + ".gguf")
            if not os.path.exists(link):
                os.link(model_path(name), link)
        self.env = dict(os.environ, OMP_WAIT_POLICY=WAITING)
        self.env.update(env or {})
        if ollama:
            self.env["OLLAMA_MODELS"] = ollama
        else:
            options = ("--no-ollama", *options)
        if self.env["OMP_WAIT_POLICY"] == NO_POLICY:
            del self.env["OMP_WAIT_POLICY"]
        self.process = subprocess.Popen(
            [HYPURA, "serve", "--port", "0", "--models", self.models, *options],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=self.env)
        self.lines = []
        self.listening = threading.Event()
        self.port = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.listening.wait(60)
        if self.port is None:
            self.stop()
            raise RuntimeError("the server does not start: " + "".join(self.lines))
        self.url = f"http://127.0.0.1:{self.port}"

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"listening on http://[^ ]*:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                self.listening.set()
        self.listening.set()

    def connect(self, timeout=300):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, timeout=300, **headers):
        """One request on a connection of its own: status, headers, body."""
        connection = self.connect(timeout)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def json(self, method, path, body=None, timeout=300, **headers):
        """The same: status, and what JSON there is."""
        status, _, data = self.ask(method, path, body, timeout, **headers)
        return status, json.loads(data) if data[:1] in (b"{", b"[") else data

    def stream(self, body, path="/api/chat"):
        """A connection on which the answer has begun, the answer, and its first line."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        return connection, answer, answer.readline()

    def chat(self, model, prompt, tokens=32, **more):
        """A greedy answer, and how it came."""
        status, answer = self.json("POST", "/v1/chat/completions", {
            "model": model, "messages": user(prompt), "temperature": 0, "max_tokens": tokens, **more})
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"], answer["timings"]

    def loaded(self):
        return [model["name"] for model in self.json("GET", "/api/ps")[1]["models"]]

    def active(self):
        """How many requests are being answered."""
        return self.json("GET", "/api/hypura/status")[1]["requests"]["active"]

    def told(self, name):
        """What is said of a model that is loaded."""
        return next(model for model in self.json("GET", "/api/hypura/status")[1]["models"] if model["name"].startswith(name))

    def engines(self):
        """Process ids of the engines."""
        pids = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                if int(fields[1]) == self.process.pid and fields[0] != "Z":
                    pids.append(int(pid))
            except OSError:
                pass
        return pids

    def stop(self, number=signal.SIGTERM):
        """Ends it; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.reader.join(10)
        self.process.stderr.close()
        if self.owned:
            shutil.rmtree(self.folder, ignore_errors=True)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


@functools.lru_cache(None)
def greedy(name, prompt, tokens):
    """What `hypura run` answers."""
    answer = subprocess.run(
        [HYPURA, "run", model_path(name), "--prompt", prompt, "--max-tokens", str(tokens), "--temp", "0", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        env=dict(os.environ, OMP_WAIT_POLICY="passive"))
    return answer.stdout.decode()[:-1]


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come to be in time")
        time.sleep(0.05)

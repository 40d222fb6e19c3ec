"""Load on a server, measured: run.sh BUILD load.py [PART[=SECONDS] ...]. Not a test: it prints figures for docs/notes.

1, 8 and 32 clients stream answers of 32 greedy tokens to eight prompts; every answer is compared with the one the same
prompt got alone (dense; moe, q4_0 and paged: with some of their weights; q4_0: the mixture in that type). front: the same
requests at the engine's own socket and through the front. stock: the same at llama.cpp's llama-server, whose path is in
LLAMA_SERVER. waiting: ways of threads to wait for each other. turns: a long conversation, over a restart. rest: connections
at rest, and wrk."""
import collections
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import harness
from harness import DENSE, MOE

PROMPTS = [f"Tell me one thing about {what}." for what in
           ("Paris", "rivers", "the moon", "bread", "music", "whales", "iron", "snow")]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=600)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def stream(connection, model, prompt, tokens=32):
    """Text, time to the first token, time of each later one."""
    begin = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps({
        "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0,
        "stream": True, "cache_prompt": False}))
    answer = connection.getresponse()
    times, text, done = [], "", False
    for line in answer:
        if line.startswith(b"data: {"):
            choice = json.loads(line[6:])["choices"][0]
            if choice["delta"].get("content"):
                times.append(time.perf_counter())
                text += choice["delta"]["content"]
            done = done or choice["finish_reason"] is not None
    if answer.status != 200 or not done:
        raise RuntimeError(f"lost: {answer.status} {text!r}")
    return text, times[0] - begin, len(times), times[-1] - times[0]


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clients:
    """n clients that ask, one request after the other, for some seconds and until their last answer is there."""

    def __init__(self, port, model, n, seconds, solo=None):
        self.port, self.model, self.solo = port, model, solo or {}
        self.counts = collections.Counter()
        self.first_s, self.later_s = [], []
        self.lock = threading.Lock()
        begin = time.monotonic()
        self.end = begin + seconds
        threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.rate = self.counts["tokens"] / (time.monotonic() - begin)

    def run(self, turn):
        while time.monotonic() < self.end:
            prompt = PROMPTS[turn % len(PROMPTS)]
            turn += 1
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
            try:
                text, first_s, tokens, rest_s = stream(connection, self.model, prompt)
            except Exception as error:
                print("  lost:", error)
                with self.lock:
                    self.counts["lost"] += 1
                continue
            finally:
                connection.close()
            with self.lock:
                self.first_s.append(first_s)
                self.later_s.append(rest_s / max(1, tokens - 1))
                self.counts["answers"] += 1
                self.counts["tokens"] += tokens
                self.counts["equal"] += text == self.solo.get(prompt)
                # An answer to another prompt would be a mixed up one; one that differs late is another sum of floats.
                self.counts["mixed"] += text != self.solo.get(prompt) and any(
                    text == other and p != prompt for p, other in self.solo.items())

    def times(self):
        median = lambda values: statistics.median(values) * 1e3
        return f"{median(self.first_s):.0f} | {median(self.later_s):.1f}"


def rss(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


SETTING = "--memory", "3G", "--threads", "2", "--parallel", "8", "--context", "512"


COARSE = MOE + "-q4_0"


def make_coarse():
    """The mixture in a type whose kernels take several rows; the demonstration's Q4_1 has no such kernels."""
    if not os.path.exists(harness.model_path(COARSE)):
        subprocess.run([os.path.join(harness.BUILD, "mkmodel"), "upcycle", harness.model_path(DENSE), harness.model_path(COARSE),
                        "--experts", "8", "--top-k", "2", "--type", "q4_0"], check=True)
    return COARSE


def counters(server):
    """What the engine has counted so far, told four times a second."""
    time.sleep(0.5)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/hypura/status")
    return json.load(connection.getresponse())["models"][0]["counters"]


def reading(before, after, seconds, tokens):
    """Hits, what was read for a token, and where the time of paged nodes went, as cells of a table."""
    used = {name: after[name] - before[name] for name in after}
    share = lambda name: f"{100 * used[name] / seconds:.0f}"
    return (f"{100 * used['bytes_hit'] / max(1, used['bytes_needed']):.0f} | {used['bytes_read'] / 1e6 / max(1, tokens):.1f} | "
            f"{share('compute_s')} | {share('read_wait_s')} | {share('overhead_s')} | {share('device_busy_s')}")


def load(model, seconds, *options):
    with harness.Server(*SETTING, *options, models=[model]) as server:
        front = server.process.pid
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        solo = {prompt: stream(connection, model, prompt)[0] for prompt in PROMPTS}
        print(f"{model} {' '.join(options)}, {seconds:.0f} s each\n"
              "| clients | answers | lost | mixed up | equal to the one alone | tokens/s | of one client | first token, ms "
              "| each later one, ms | front: CPU per token, ms | memory, MB | descriptors "
              "| hits, % | read for a token, MB | time, %: computing | waiting for reads | overhead | drive busy |")
        first = None
        for n in 1, 8, 32:
            before_s, before, begin = cpu_s(front), counters(server), time.monotonic()
            run = Clients(server.port, model, n, seconds, solo)
            wall_s = time.monotonic() - begin
            first = first or run.rate
            c = run.counts
            print(f"| {n} | {c['answers']} | {c['lost']} | {c['mixed']} | {c['equal']} | {run.rate:.1f} | {run.rate / first:.2f} | "
                  f"{run.times()} | {(cpu_s(front) - before_s) * 1e3 / max(1, c['tokens']):.3f} | "
                  f"{rss(front) / 1e6:.1f} | {descriptors(front)} | {reading(before, counters(server), wall_s, c['tokens'])} |")


def against_stock(stock, model, seconds):
    """The same requests at llama-server, set as our engine sets it, and through the front, by turns."""
    port = 18733
    other = subprocess.Popen(
        [stock, "--model", harness.model_path(model), "--port", str(port), "--ctx-size", "4096", "--parallel", "8", "--threads", "2",
         "--no-kv-unified", "--fit", "off", "--offline", "--no-ui", "--log-verbosity", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, OMP_WAIT_POLICY=harness.WAITING))
    try:
        with harness.Server(*SETTING, models=[model]) as server:
            rates = collections.defaultdict(list)
            for name, at in ("ours", server.port), ("llama-server", port):
                harness.wait_until(lambda: is_ready(at, model))
            print(f"{model}, resident, {seconds:.0f} s each, by turns\n| | clients | tokens/s | first token, ms | each later one, ms |")
            for turn in range(3):
                for n in 1, 8:
                    pair = [("ours", server.port), ("llama-server", port)]
                    for name, at in pair if turn % 2 else reversed(pair):
                        run = Clients(at, model, n, seconds)
                        rates[name, n].append(run.rate)
                        print(f"| {name} | {n} | {run.rate:.1f} | {run.times()} |")
            for name in "ours", "llama-server":
                one, eight = (statistics.median(rates[name, n]) for n in (1, 8))
                print(f"{name}: {one:.1f} and {eight:.1f} tokens/s (medians), {eight / one:.2f}x")
    finally:
        other.terminate()
        other.wait()


# How threads of an engine wait for each other, as GNU's OpenMP reads it. Its own default looks 300,000 times.
POLICIES = {"the server's": {"OMP_WAIT_POLICY": harness.NO_POLICY}, "passive": {"OMP_WAIT_POLICY": "passive"},
            "GNU's": {"OMP_WAIT_POLICY": harness.NO_POLICY, "GOMP_SPINCOUNT": "300000"}}


def waiting(seconds):
    """One client, eight, and one beside two programs that compute all the time, by turns of policies."""
    rates = collections.defaultdict(list)
    rest_cpu = {}
    for turn in range(2):
        for model, options in (MOE, ("--weights", "224M")), (DENSE, ()):
            for policy in POLICIES if turn % 2 else reversed(POLICIES):
                with harness.Server(*SETTING, *options, models=[model], env=POLICIES[policy]) as server:
                    Clients(server.port, model, 1, 0.1)
                    for name, n, others in ("1", 1, 0), ("8", 8, 0), ("1, busy", 1, os.cpu_count()):
                        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
                        rates[model, policy, name].append(Clients(server.port, model, n, seconds).rate)
                        for other in busy:
                            other.kill()
                            other.wait()
                    before_s = sum(map(cpu_s, server.engines()))
                    time.sleep(1)
                    rest_cpu[policy] = sum(map(cpu_s, server.engines())) - before_s
    for (model, policy, name), values in rates.items():
        print(f"| {model} | {policy} | {name} | {' '.join(f'{value:.1f}' for value in values)} |")
    print("CPU of an engine at rest, of a second:", ", ".join(f"{p} {s:.2f}" for p, s in rest_cpu.items()))


def is_ready(port, model):
    try:
        stream(http.client.HTTPConnection("127.0.0.1", port, timeout=600), model, PROMPTS[0], 2)
        return True
    except (OSError, RuntimeError, http.client.HTTPException):
        return False


def overhead():
    with harness.Server("--memory", "1G", "--threads", "1", "--parallel", "1", models=[DENSE]) as server:
        front = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        stream(front, DENSE, PROMPTS[0])
        with open(f"/proc/{server.engines()[0]}/cmdline") as file:
            words = file.read().split("\0")
        engine = UnixConnection(words[words.index("--socket") + 1])
        rows = {"front": [], "engine": []}
        pair = [("front", front), ("engine", engine)]
        for i in range(24):
            for name, connection in pair if i % 2 else reversed(pair):
                connection.close() # the engine closes what rests; both connect anew
                rows[name].append(stream(connection, DENSE, PROMPTS[i % 8], 16))
        median = lambda values: statistics.median(values) * 1e3
        first = {name: median(row[1] for row in values) for name, values in rows.items()}
        later = {name: median(row[3] / (row[2] - 1) for row in values) for name, values in rows.items()}
        print(f"first token: front {first['front']:.2f} ms, engine {first['engine']:.2f} ms, "
              f"difference {first['front'] - first['engine']:.2f} ms")
        print(f"later tokens: front {later['front']:.3f} ms, engine {later['engine']:.3f} ms, "
              f"difference {later['front'] - later['engine']:.3f} ms")
        # Requests that cost the engine next to nothing show the front better.
        times = {"front": [], "engine": []}
        before_s = cpu_s(server.process.pid)
        for i in range(400):
            for name, connection in pair if i % 2 else reversed(pair):
                connection.close()
                begin = time.perf_counter()
                connection.request("POST", "/tokenize", '{"model":"' + DENSE + '","content":"a b c"}')
                connection.getresponse().read()
                times[name].append(time.perf_counter() - begin)
        front_ms, engine_ms = median(times["front"]), median(times["engine"])
        print(f"/tokenize, 400 by turns: front {front_ms:.3f} ms, engine {engine_ms:.3f} ms, difference "
              f"{front_ms - engine_ms:.3f} ms; the front's CPU per request "
              f"{(cpu_s(server.process.pid) - before_s) * 1e3 / 400:.3f} ms")


def rest():
    with harness.Server("--memory", "1G", models=[DENSE]) as server:
        pid = server.process.pid
        def version():
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("GET", "/api/version")
            connection.getresponse().read()
            connection.close()
        version()
        before = rss(pid)
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1000)]
        version()
        print(f"1,000 connections at rest: {(rss(pid) - before) / 1e6:.2f} MB more")
        time.sleep(20)
        print(f"  after 20 s: {(rss(pid) - before) / 1e6:.2f} MB more, {descriptors(pid)} descriptors")
        for connection in idle:
            connection.close()
        time.sleep(1)
        print(f"  closed: {(rss(pid) - before) / 1e6:.2f} MB more, {descriptors(pid)} descriptors")
        for _ in range(2):
            os.system(f"wrk -t1 -c32 -d10s http://127.0.0.1:{server.port}/api/version | grep -E 'Requests/sec|Socket|Non-2xx'")
            print(f"  after wrk: {(rss(pid) - before) / 1e6:.2f} MB more, {descriptors(pid)} descriptors")


def turns():
    """A long conversation that goes on, also after a restart: time to the first token of each turn."""
    folder = tempfile.mkdtemp(prefix="hypura-turns-")
    talk = [{"role": "user", "content": " ".join(f"Item {i} is a {what}." for i in range(50) for what in
                                               ("river", "lamp", "stone", "horse", "book", "cloud", "door", "ship")) + " Count them."}]
    first_s = None
    for server_turn in range(2):
        with harness.Server("--memory", "2G", "--threads", "2", models=[DENSE], folder=folder) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
            stream(connection, DENSE, "hi", 1) # loads the model
            for _ in range(2):
                begin = time.perf_counter()
                connection.request("POST", "/v1/chat/completions", json.dumps({
                    "model": DENSE, "messages": talk, "max_tokens": 24, "temperature": 0, "stream": True,
                    "stream_options": {"include_usage": True}}))
                text, took_s, usage = "", None, {}
                for line in connection.getresponse():
                    if line.startswith(b"data: {"):
                        event = json.loads(line[6:])
                        usage = event.get("usage") or usage
                        said = event["choices"][0]["delta"].get("content") if event["choices"] else None
                        took_s = time.perf_counter() - begin if said and not took_s else took_s
                        text += said or ""
                first_s = first_s or took_s
                print(f"| {'after a restart' if server_turn else 'in one run'} | {usage['prompt_tokens']} | "
                      f"{usage['prompt_tokens_details']['cached_tokens']} | {took_s:.2f} s | {100 * took_s / first_s:.1f} % |", flush=True)
                talk += [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
            time.sleep(3) # the state is saved a second after the last answer
    shutil.rmtree(folder)


PARTS = {
    "turns": lambda _: turns(),
    "front": lambda _: overhead(),
    "rest": lambda _: rest(),
    "dense": lambda seconds: load(DENSE, seconds),
    "moe": lambda seconds: load(MOE, seconds, "--weights", "224M"),
    "q4_0": lambda seconds: load(make_coarse(), seconds, "--weights", "35%"),
    "paged": lambda seconds: load(DENSE, seconds, "--weights", "60%"),
    "waiting": waiting,
    "stock": lambda seconds: against_stock(os.environ["LLAMA_SERVER"], DENSE, seconds),
}

if __name__ == "__main__":
    for word in sys.argv[1:] or ("front", "rest", "dense=60", "moe=60"):
        part, _, number = word.partition("=")
        print(f"\n{time.strftime('%H:%M:%S')} {word}", flush=True)
        PARTS[part](float(number or 60))

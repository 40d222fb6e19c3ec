"""Load on a server, measured: run.sh BUILD load.py [SECONDS]. Not a test: it prints figures for docs/notes.

1, 8 and 32 clients stream answers of 32 greedy tokens to eight prompts; every answer is compared with the one the same
prompt got alone. Then the cost of the front: the same requests at the engine's own socket and through the front."""
import collections
import http.client
import json
import os
import socket
import statistics
import sys
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


def run_clients(server, model, n, seconds, solo):
    counts = collections.Counter()
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def client(index):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        turn = index
        while time.monotonic() < end:
            prompt = PROMPTS[turn % len(PROMPTS)]
            turn += 1
            try:
                text, _, tokens, _ = stream(connection, model, prompt)
            except Exception as error:
                print("  lost:", error)
                with lock:
                    counts["lost"] += 1
                connection.close()
                continue
            with lock:
                counts["answers"] += 1
                counts["tokens"] += tokens
                counts["equal"] += text == solo[prompt]
                # An answer to another prompt would be a mixed up one; one that differs late is another sum of floats.
                counts["mixed"] += any(text == other and p != prompt for p, other in solo.items()) and text != solo[prompt]
        connection.close()

    begin = time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts["rate"] = counts["tokens"] / (time.monotonic() - begin)
    return counts


def rss(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def load(model, seconds, *options):
    with harness.Server("--memory", "3G", "--threads", "2", "--parallel", "8", "--context", "512", *options,
                        models=[model]) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        solo = {prompt: stream(connection, model, prompt)[0] for prompt in PROMPTS}
        print(f"{model} {' '.join(options)}")
        first = None
        for n in 1, 8, 32:
            counts = run_clients(server, model, n, seconds, solo)
            first = first or counts["rate"]
            print(f"  {n:2} clients: {counts['answers']} answers, {counts['lost']} lost, {counts['mixed']} mixed up, "
                  f"{counts['equal']} equal to solo, {counts['rate']:.1f} tokens/s, {counts['rate'] / first:.2f}x; "
                  f"front {rss(server.process.pid) / 1e6:.1f} MB, {descriptors(server.process.pid)} descriptors")


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
        costs = {}
        for name, connection in ("front", front), ("engine", engine):
            times = []
            for _ in range(200):
                connection.close()
                begin = time.perf_counter()
                connection.request("POST", "/tokenize", '{"model":"' + DENSE + '","content":"a b c"}')
                connection.getresponse().read()
                times.append(time.perf_counter() - begin)
            costs[name] = median(times)
        print(f"/tokenize: front {costs['front']:.3f} ms, engine {costs['engine']:.3f} ms, "
              f"difference {costs['front'] - costs['engine']:.3f} ms")


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


if __name__ == "__main__":
    overhead()
    rest()
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    load(DENSE, seconds)
    load(MOE, seconds, "--weights", "224M")

"""Faults on a server, counted: run.sh BUILD faults.py [PART[=NUMBER] ...]. Not a test: it prints figures for docs/notes.
Parts: half, slow, unread, big, fuzz=SECONDS, kills=NUMBER; SEED in the environment begins the fuzz elsewhere.

An engine killed in the middle of an answer, many times; requests cut to pieces and mixed; senders that are slow; sockets
that are closed on one side. The front has to stay, with the right status, and without more memory or descriptors."""
import collections
import http.client
import json
import os
import random
import signal
import socket
import sys
import time

import harness
from harness import DENSE
from load import descriptors, rss

SHORT, STORY = (dict(body, model=DENSE) for body in (harness.SHORT, harness.STORY))
SEED = int(os.environ.get("SEED", "1"))


def told(server, what, before):
    print(f"{what}: {(rss(server.process.pid) - before) / 1e6:.2f} MB more, {descriptors(server.process.pid)} descriptors")


def kills(server, n):
    counts = collections.Counter()
    for i in range(int(n)):
        connection, answer, line = server.stream(STORY)
        time.sleep(random.random() * 0.2)
        for pid in server.engines():
            os.kill(pid, signal.SIGKILL)
        last = json.loads((line + answer.read()).splitlines()[-1])
        counts["told"] += "signal 9" in last.get("error", "")
        connection.close()
        status, _, data = server.ask("POST", "/api/chat", SHORT)
        counts[f"next: {status}"] += 1
        if status != 200:
            print(f"  after kill {i}: {status} {data!r}")
    print(f"{int(n)} kills: {dict(counts)}")


def fuzz(server, seconds):
    rng = random.Random(SEED)
    seeds = [json.dumps(SHORT).encode(), json.dumps(dict(STORY, tools=[{"type": "function"}], format={"type": "object"},
             think=True, keep_alive="5m")).encode(), b'{"model":"x","input":["a",1,null]}']
    paths = ["/api/chat", "/api/generate", "/api/embed", "/api/show", "/api/copy", "/v1/chat/completions",
             "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize"]
    counts = collections.Counter()
    begin = told_at = time.monotonic()
    while time.monotonic() < begin + seconds:
        if time.monotonic() > told_at + 30: # growth shows as growth that goes on
            told_at += 30
            print(f"  {told_at - begin:.0f} s, {sum(counts.values())} requests: {rss(server.process.pid) / 1e6:.2f} MB")
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(body) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                del body[at : at + rng.randrange(1, 20)]
            elif kind == 1:
                body[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 4)))
            elif kind == 2:
                body[at:at] = rng.choice([b"{", b"}", b"[", b'"', b"null", b"1e999", b"\\u0000", b"-1", b"true"])
            else:
                body[at:at] = bytes(body[: rng.randrange(len(body) + 1)])
        body = bytes(body).replace(b"2000", b"2")
        path = rng.choice(paths)
        try:
            status, _, data = server.ask("POST", path, body)
            counts[status] += 1
            if status >= 500:
                print(f"  {status} {path} {body!r}: {data!r}", flush=True)
        except (OSError, http.client.HTTPException) as error:
            counts[type(error).__name__] += 1
    print(f"{sum(counts.values())} damaged requests: {dict(sorted(counts.items(), key=str))}")


def slow(server, _):
    begin = time.monotonic()
    body = json.dumps(SHORT).encode()
    held = []
    for i in range(200):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        held.append(connection)
    n_sent, ended = 0, None
    while held and time.monotonic() - begin < 90:
        time.sleep(3)
        n_sent += 1
        for connection in list(held):
            try:
                connection.sendall(body[n_sent : n_sent + 1])
                connection.setblocking(False)
                if connection.recv(1) == b"":
                    raise OSError
            except BlockingIOError:
                connection.setblocking(True)
            except OSError:
                ended = ended or time.monotonic() - begin
                connection.close()
                held.remove(connection)
        assert server.ask("GET", "/api/version")[0] == 200
    print(f"200 senders of a byte every 3 s: {200 - len(held)} cut off, the first after {ended or 0:.0f} s; others were served")


def unread(server, _):
    """Readers that never read a long answer: how long each may stay."""
    body = json.dumps({"model": DENSE, "messages": STORY["messages"], "max_tokens": 1000, "stream": True, "logprobs": True,
                       "top_logprobs": 20}).encode()
    begin = time.monotonic()
    held = []
    for i in range(8):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        held.append(connection)
    most, ended_s = 0, None
    while time.monotonic() - begin < 180:
        time.sleep(1)
        most = max(most, rss(server.process.pid))
        assert server.ask("GET", "/api/version")[0] == 200
        status = server.json("GET", "/api/hypura/status")[1]
        if status["requests"]["active"] == 0:
            ended_s = time.monotonic() - begin
            break
    status, _, _ = server.ask("POST", "/api/chat", SHORT)
    print(f"8 readers that read nothing of 1,000 tokens with probabilities: all given up after {ended_s or 0:.0f} s, at most "
          f"{most / 1e6:.1f} MB in all meanwhile; the next request: {status}")
    for connection in held:
        connection.close()


def big(server, _):
    """Bodies of 100 MB, which is above the limit: announced, and in pieces of unknown number."""
    answers = collections.Counter()
    piece = b"x" * (1 << 20)
    for i in range(8):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            chunked = i % 2
            connection.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n" +
                               (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: 104857600\r\n\r\n"))
            try:
                for _ in range(100):
                    connection.sendall(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
                if chunked:
                    connection.sendall(b"0\r\n\r\n")
            except OSError:
                pass
            answers[connection.recv(65536)[9:12].decode() or "closed"] += 1
    print(f"8 bodies of 100 MB: {dict(answers)}")


def half(server, _):
    body = json.dumps(SHORT).encode()
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    answers = collections.Counter()
    for i in range(100):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall((head + body)[: random.randrange(1, len(head + body) + 1)] if i % 2 else
                           b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answers[connection.recv(65536)[:12].decode() or "closed"] += 1
        connection.close()
    print(f"100 sockets closed on the sending side: {dict(answers)}")


with harness.Server("--memory", "1G", "--threads", "2", "--context", "1024", models=[DENSE]) as server:
    server.ask("POST", "/api/chat", SHORT)
    half(server, None)
    before = rss(server.process.pid)
    told(server, "at the beginning", before)
    for word in sys.argv[1:] or ("half", "slow", "unread", "big", "fuzz=60", "kills=100"):
        part, _, number = word.partition("=")
        {"half": half, "slow": slow, "unread": unread, "big": big, "fuzz": fuzz, "kills": kills}[part](server, float(number or 60))
        told(server, f"after {part}", before)

"""A server for a long time, with everything that clients do: run.sh BUILD soak.py [MINUTES]. Not a test: it prints figures.

Two models that do not fit into its memory together, four clients of three APIs that read whole answers, leave in the middle, read
slowly, ask for what is not there; models that are copied and deleted while they answer; engines that are killed. Every minute: the
front's memory, descriptors and threads, and how requests ended. What ends as it should not is printed."""
import collections
import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time

import harness
from harness import DENSE, MOE
from load import descriptors, rss

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 30
SEED = int(os.environ.get("SEED", "1"))
counts = collections.Counter()
lock = threading.Lock()
killed_s = [0.0]


def count(what):
    with lock:
        counts[what] += 1


def is_excused(text):
    """An engine was killed a moment ago, and this says so."""
    return "signal 9" in text or ("engine" in text and time.monotonic() - killed_s[0] < 60)


class Fault(Exception):
    pass


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)


def post(connection, path, body, method="POST"):
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def question(rng):
    what, about = rng.choice(("one thing", "a story", "a joke")), rng.choice(("Rome", "snow", "iron"))
    return [{"role": "user", "content": f"Tell me {what} about {about}."}]


def request_of(rng, model, tokens):
    """Path, body, and what the last line of its stream has in it."""
    messages = question(rng)
    if rng.random() < 0.2:
        messages.append({"role": "assistant", "content": "Well, "})
    kind = rng.randrange(4)
    if kind == 0:
        return "/v1/chat/completions", {"messages": messages, "max_tokens": tokens}, "[DONE]"
    if kind == 1:
        return "/v1/messages", {"messages": messages, "max_tokens": tokens}, "message_stop"
    if kind == 2:
        items = [dict(message, type="message") for message in messages]
        return "/v1/responses", {"input": items, "max_output_tokens": tokens}, "response."
    return "/api/chat", {"messages": messages, "options": {"num_predict": tokens}}, '"done":true'


def whole(server, rng, model):
    path, body, end = request_of(rng, model, rng.randrange(1, 48))
    stream = rng.random() < 0.7
    connection = connect(server)
    answer = post(connection, path, dict(body, model=model, stream=stream))
    data = answer.read().decode()
    connection.close()
    last = next((line for line in reversed(data.splitlines()) if line), "")
    good = answer.status == 200 and ((end in last and '"error":{' not in last) if stream else isinstance(json.loads(data), dict))
    if not good and not is_excused(data):
        raise Fault(f"{path} {answer.status} {last[-300:]}")
    count("whole" if good else "killed")


def leave(server, rng, model):
    path, body, _ = request_of(rng, model, 400)
    connection = connect(server)
    answer = post(connection, path, dict(body, model=model, stream=True))
    for _ in range(rng.randrange(0, 12)):
        answer.readline()
    connection.close()
    count("left")


def slow(server, rng, model):
    body = json.dumps({"model": model, "messages": question(rng), "max_tokens": 60,
                       "stream": True, "logprobs": True, "top_logprobs": 10}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(300)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        for _ in range(rng.randrange(1, 20)):
            if not connection.recv(256):
                break
            time.sleep(0.1)
    count("slow")


def wrong(server, rng, model):
    connection = connect(server)
    path, body, wanted = rng.choice((
        ("/v1/chat/completions", {"model": "nobody", "messages": []}, 404), ("/api/chat", {"model": model, "messages": 5}, 400),
        ("/v1/messages", {"model": model, "max_tokens": 5, "messages": question(rng), "mcp_servers": [{}]}, 400),
        ("/api/show", {"model": model}, 200), ("/api/embed", {"model": DENSE, "input": "a"}, 200), ("/api/nothing", {}, 404)))
    answer = post(connection, path, body)
    data = answer.read().decode()
    connection.close()
    if answer.status != wanted and not is_excused(data):
        raise Fault(f"{path} {answer.status} instead of {wanted}: {data[-300:]}")
    count(f"status {answer.status}")


def delete(server, rng, model):
    """A copy that is deleted while it answers: the answer still comes to its end."""
    name = f"copy{rng.randrange(10**6)}"
    connection, other = connect(server), connect(server)
    post(other, "/api/copy", {"source": DENSE, "destination": name}).read()
    answer = post(connection, "/api/chat", {"model": name, "messages": question(rng), "options": {"num_predict": 60}})
    first = answer.readline()
    gone = post(other, "/api/delete", {"model": name}, "DELETE")
    gone.read()
    data = (first + answer.read()).decode()
    after = post(other, "/api/chat", {"model": name, "messages": question(rng)})
    after.read()
    connection.close()
    other.close()
    if (gone.status, after.status) != (200, 404) or '"done":true' not in data:
        if not is_excused(data):
            raise Fault(f"deleted: {gone.status} {after.status} {data[-300:]}")
    count("deleted")


def kill(server, rng, model):
    pids = server.engines()
    if pids:
        killed_s[0] = time.monotonic()
        os.kill(rng.choice(pids), signal.SIGKILL)
        count("kills")


KINDS = [(whole, 60), (leave, 15), (slow, 4), (wrong, 15), (delete, 2), (kill, 1)]


def client(server, number, end_s):
    rng = random.Random(SEED * 1000 + number)
    while time.monotonic() < end_s:
        act = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
        try:
            act(server, rng, DENSE if rng.random() < 0.8 else MOE)
        except Fault as fault:
            count("FAULTS")
            print(f"  {act.__name__}: {fault}", flush=True)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() - killed_s[0] > 60:
                count("FAULTS")
                print(f"  {act.__name__}: {type(error).__name__} {error}", flush=True)
            else:
                count("broken off after a kill")
        time.sleep(rng.random())


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


with harness.Server("--memory", "900M", "--threads", "1", "--context", "1024", "--keep-alive", "30",
                    models=(DENSE, MOE)) as server:
    end_s = time.monotonic() + MINUTES * 60
    clients = [threading.Thread(target=client, args=(server, i, end_s)) for i in range(4)]
    for thread in clients:
        thread.start()
    begin = time.monotonic()
    while time.monotonic() < end_s:
        time.sleep(min(60, MINUTES * 6))
        pid = server.process.pid
        print(f"{(time.monotonic() - begin) / 60:.1f} min: {rss(pid) / 1e6:.1f} MB, "
              f"{descriptors(pid)} descriptors, {threads_of(pid)} threads, "
              f"{len(server.engines())} engines; {dict(sorted(counts.items()))}", flush=True)
    for thread in clients:
        thread.join()
    time.sleep(40)
    pid = server.process.pid
    print(f"at rest: {rss(pid) / 1e6:.1f} MB, {descriptors(pid)} descriptors, {threads_of(pid)} threads, {len(server.engines())} engines")
    print(f"ended with {server.stop()}; {dict(sorted(counts.items()))}")

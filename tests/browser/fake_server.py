#!/usr/bin/env python3
"""A server that says what the page asks for, with figures that move: for looking at the page without a model.

    fake_server.py PAGE [PORT]       prints its port; serves until it is interrupted
"""
import http.server
import json
import random
import sys
import threading
import time

PAGE = sys.argv[1]
BEGIN = time.time()
STATE = {"busy": 0, "tokens": 0, "pulled": False, "loaded": []}
GIB = 1 << 30
ANSWER = """Paris is the capital of **France**. A few things about it:

1. It lies on the *Seine*.
2. Its `population` is about two million.

```python
def capital(country):
    return {"France": "Paris"}[country]   # <b>not HTML</b> <script>alert(1)</script>
```

See [the map](https://example.org/paris) or [this](javascript:alert(1)).
"""


def models():
    names = [("qwen3:30b", 18 * GIB, "30.5B"), ("SmolLM2-135M-Instruct-Q8_0:latest", 145 << 20, "134.52M")]
    if STATE["pulled"]:
        names.append(("hf.co/user/repo:Q4_K_M", 4 * GIB, "7B"))
    return names


def loaded(name):
    tokens = STATE["tokens"]
    return {"name": name, "state": "ready", "mode": "resident" if "SmolLM2" in name else "experts", "pid": 7, "load_share": 1.0, "slots": 4,
             "busy": STATE["busy"], "waiting": 0, "expires_at": None, "io_engine": "uring", "direct_io": True,
             "tiers": {"resident_bytes": int(1.4 * GIB), "pinned_bytes": 0, "ring_bytes": 0,
                       "pool_bytes": int(6.2 * GIB + 0.4 * GIB * random.random()), "drive_bytes": int(10.3 * GIB),
                       "kv_bytes": 400 << 20, "compute_bytes": 310 << 20, "overhead_bytes": 60 << 20},
             "gpu": gpu(tokens) if name == "qwen3:30b" else {},
             "experts": {"slots": 2300, "experts": 6144},
             "counters": {"prompt_tokens": tokens // 3, "generated_tokens": tokens, "starts": 1,
                          "bytes_read": tokens * (24 << 20), "bytes_needed": tokens * (600 << 20),
                          "bytes_hit": tokens * (576 << 20), "reads": tokens * 20, "evictions": tokens * 20,
                          "compute_s": tokens * 0.022, "read_wait_s": tokens * 0.006, "overhead_s": tokens * 0.001,
                          "device_busy_s": tokens * 0.012}}


def gpu(tokens):
    return {"weight_bytes": 1 << 30, "slot_bytes": 5 * GIB, "other_bytes": 700 << 20, "bytes_needed": tokens * (600 << 20),
            "bytes_hit": tokens * (540 << 20), "bytes_uploaded": tokens * (60 << 20), "readbacks": tokens * 48,
            "run_ahead": tokens * 40, "repeated": tokens * 4, "readback_s": tokens * 48 * 21e-6,
            "devices": [{"name": f"Vulkan{i}", "weight_bytes": 512 << 20, "slot_bytes": 5 * GIB // 2, "other_bytes": 350 << 20,
                         "bytes_needed": 100 << 30, "bytes_hit": (82 + 16 * i) << 30, "bytes_uploaded": (18 - 16 * i) << 30}
                        for i in range(2)]}


def status():
    # They move from one question to the next, so that a page that asks seldom on a slow machine has something to show too.
    STATE["tokens"] += 3 * bool(STATE["loaded"])
    return {"version": "0.1.0", "uptime_s": time.time() - BEGIN, "ready": True,
            "models": [loaded(name) for name in STATE["loaded"]],
            "memory": {"budget_bytes": 16 * GIB, "used_bytes": 9 * GIB}, "drive": {"direct_bytes_per_s": 2.8e9},
            "connections": {"open": 3, "limit": 1000},
            "requests": {"active": STATE["busy"], "waiting": 0, "waiting_limit": 64, "answered": 12, "failed": 0,
                         "rejected": 0}}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/":
            with open(PAGE, "rb") as page:
                self.answer("text/html; charset=utf-8", page.read())
        elif self.path == "/api/tags":
            listed = [{"name": n, "size": s, "details": {"parameter_size": p}} for n, s, p in models()]
            self.answer("application/json", json.dumps({"models": listed}).encode())
        elif self.path == "/api/hypura/status":
            self.answer("application/json", json.dumps(status()).encode())
        else:
            self.send_error(404)

    def line(self, value):
        data = json.dumps(value).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.chat(asked) if self.path == "/api/chat" else self.pull()
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def chat(self, asked):
        STATE["busy"] += 1
        if asked["model"] not in STATE["loaded"]:
            STATE["loaded"].append(asked["model"])
        try:
            for piece in ["I ", "am ", "thinking."]:
                self.line({"message": {"role": "assistant", "content": "", "thinking": piece}, "done": False})
            counting = asked["messages"][-1]["content"].startswith("Count")  # to be stopped, however slow the page is
            text = ANSWER * 100 if counting else ANSWER
            for at in range(0, len(text), 4):
                STATE["tokens"] += 1
                self.line({"message": {"role": "assistant", "content": text[at:at + 4]}, "done": False})
                time.sleep(0.03)
            self.line({"message": {"role": "assistant", "content": "\nModel: " + asked["model"]}, "done": True,
                       "done_reason": "stop", "eval_count": 99, "eval_duration": int(3e9), "prompt_eval_count": 12,
                       "prompt_eval_duration": int(1e8), "load_duration": int(2e8)})
        finally:
            STATE["busy"] -= 1

    def pull(self):
        self.line({"status": "pulling manifest"})
        for done in range(0, 101, 5):
            self.line({"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a", "total": 4 * GIB, "completed": done * GIB // 25})
            time.sleep(0.05)
        STATE["pulled"] = True
        self.line({"status": "success"})


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass

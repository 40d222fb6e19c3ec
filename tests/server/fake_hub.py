#!/usr/bin/env python3
"""A hub and a registry on loopback, with the faults that real ones have.

    fake_hub.py FOLDER       prints its port, serves until its standard input ends

FOLDER/USER/REPO/... are repositories: listed at /api/models/USER/REPO/tree/main, fetched at /USER/REPO/resolve/main/PATH
(which redirects to /cdn/...), and as a manifest with blobs below /v2/USER/REPO. FOLDER/USER/REPO/faults.json, which is read
for each request and not listed, says what goes wrong:

    drop_after: N, times: M     the first M downloads break off after N bytes
    status: S, times: M         the first M downloads are answered with S
    no_range                    downloads begin at the beginning, whatever was asked for
    wrong_range                 downloads send another part than was asked for
    corrupt                     the bytes are not those that were listed
    excess                      there are more bytes than were listed
    bytes_per_s: N              downloads are that slow
    no_lfs                      no SHA-256 is listed
    private                     only those with the token "secret" may look; the CDN must not see it
    pages: N                    that many files to a page of the listing
    twice                       manifests list each layer twice

FOLDER/log gets a line for each request: method, path, Range.
"""
import hashlib
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse

ROOT = sys.argv[1]
LOCK = threading.Lock()
COUNTS = {}


def files_of(repository):
    top = os.path.join(ROOT, repository)
    for here, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            if name != "faults.json":
                yield os.path.relpath(os.path.join(here, name), top)


def read(repository, path):
    with open(os.path.join(ROOT, repository, path), "rb") as file:
        return file.read()


def faults_of(repository):
    try:
        with open(os.path.join(ROOT, repository, "faults.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path, _, query = urllib.parse.unquote(self.path).partition("?")
        with LOCK, open(os.path.join(ROOT, "log"), "a", encoding="utf-8") as log:
            print("GET", path, self.headers.get("Range", "-"), file=log)
        words = path.strip("/").split("/")
        repository = None
        if words[:2] == ["api", "models"]:
            repository, what = "/".join(words[2:4]), "list"
        elif words[0] == "v2":
            repository, what = "/".join(words[1:3]), words[3]
        elif words[0] == "cdn":
            repository, what = "/".join(words[1:3]), "file"
        elif words[2:4] == ["resolve", "main"]:
            repository, what = "/".join(words[0:2]), "resolve"
        if not repository or not os.path.isdir(os.path.join(ROOT, repository)):
            return self.answer(404)
        faults = faults_of(repository)
        authorized = self.headers.get("Authorization") == "Bearer secret"
        if what == "file" and self.headers.get("Authorization"):
            return self.answer(400, b"the token came to the wrong server")
        if faults.get("private") and what != "file" and not authorized:
            return self.answer(401)
        if what == "list":
            return self.list(repository, faults, urllib.parse.parse_qs(query))
        if what == "manifests":
            return self.manifest(repository, words[4])
        if what == "blobs":
            for name in files_of(repository):
                if "sha256:" + hashlib.sha256(read(repository, name)).hexdigest() == words[4]:
                    return self.file(repository, name, faults)
            return self.answer(404)
        if what == "resolve":
            # Another name of this machine stands for another server.
            port = self.server.server_address[1]
            return self.answer(302, Location=f"http://localhost:{port}/cdn/{repository}/"
                               + urllib.parse.quote("/".join(words[4:])))
        return self.file(repository, "/".join(words[3:]), faults)

    def list(self, repository, faults, query):
        entries = []
        for name in files_of(repository):
            data = read(repository, name)
            entry = {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
            if not faults.get("no_lfs"):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        size = faults.get("pages", len(entries) + 1)
        at = int(query.get("cursor", ["0"])[0])
        headers = {}
        if at + size < len(entries):
            port = self.server.server_address[1]
            headers["Link"] = (f"<http://127.0.0.1:{port}/api/models/{repository}/tree/main?recursive=true"
                               f"&cursor={at + size}>; rel=\"next\"")
        return self.answer(200, json.dumps(entries[at:at + size]).encode(), **headers)

    def manifest(self, repository, tag):
        kinds = {".gguf": "model", ".mmproj": "projector", ".adapter": "adapter", ".adapter2": "adapter",
                 ".template": "template", ".params": "params",
                 ".system": "system"}
        layers = []
        for name in files_of(repository):
            stem, ending = os.path.splitext(name)
            if stem == tag and ending in kinds:
                data = read(repository, name)
                layers.append({"mediaType": "application/vnd.ollama.image." + kinds[ending], "size": len(data),
                               "digest": "sha256:" + hashlib.sha256(data).hexdigest()})
        if not layers:
            return self.answer(404)
        if faults_of(repository).get("twice"):
            layers += layers
        return self.answer(200, json.dumps({"schemaVersion": 2, "layers": layers}).encode())

    def file(self, repository, name, faults):
        data = read(repository, name)
        with LOCK:
            COUNTS[repository, name] = count = COUNTS.get((repository, name), 0) + 1
        faulty = count <= faults.get("times", 1 << 30)
        if faulty and "status" in faults:
            return self.answer(faults["status"])
        if faults.get("corrupt"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if faults.get("excess"):
            data += b"more"
        start = 0
        wanted = self.headers.get("Range")
        if wanted and not faults.get("no_range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            if start >= len(data):
                return self.answer(416)
            if faults.get("wrong_range"):
                start = max(0, start - 7)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        body = data[start:]
        if faulty and "drop_after" in faults:
            body = body[:faults["drop_after"]]
            self.close_connection = True
        step = max(1, faults["bytes_per_s"] // 20) if "bytes_per_s" in faults else len(body) or 1
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at:at + step])
                if "bytes_per_s" in faults:
                    self.wfile.flush()
                    time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients that go away are part of the tests."""


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()

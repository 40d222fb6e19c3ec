#!/usr/bin/env python3
"""Two servers on loopback, https and http, that lead on to each other.

    redirecting.py CERTIFICATE       prints both ports, serves until its standard input ends

/to/https/... and /to/http/... lead there to the rest of the path, /text is "the text".
"""
import http.server
import ssl
import sys
import threading

PORTS = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        words = self.path.split("/", 3)
        body = b"" if words[1] == "to" else b"the text"
        self.send_response(302 if words[1] == "to" else 200)
        if words[1] == "to":
            self.send_header("Location", f"{words[2]}://127.0.0.1:{PORTS[words[2]]}/{words[3]}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


servers = {kind: http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for kind in ("https", "http")}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
servers["https"].socket = context.wrap_socket(servers["https"].socket, server_side=True)
for kind, server in servers.items():
    server.daemon_threads = True
    PORTS[kind] = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(PORTS["https"], PORTS["http"], flush=True)
sys.stdin.read()

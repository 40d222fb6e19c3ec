"""What a server owes besides answers: limits, refusals, keys, addresses. Plain sockets, one tiny model."""
import hashlib
import http.client
import json
import os
import resource
import socket
import unittest

import harness
from harness import WORDS, SHORT, STORY, user


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--threads", "1", "--memory", "2G", "--max-body", "1M", "--max-requests", "3",
                                    "--parallel", "3", models=[WORDS])

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def busy_slots(self):
        status, slots = self.server.json("GET", f"/slots?model={WORDS}")
        assert status == 200, slots
        return sum(slot["is_processing"] for slot in slots)

    def test_refusals_of_the_engine_are_of_the_clients_api(self):
        body = {"model": WORDS, "max_tokens": 5, "messages": [{"role": "user", "content": 5}]}
        status, _, data = self.server.ask("POST", "/v1/messages", body)
        self.assertEqual((status, json.loads(data)["type"]), (400, "error"), data)
        status, _, data = self.server.ask("POST", "/v1/chat/completions", body)
        self.assertEqual((status, json.loads(data)["error"]["code"]), (400, 400), data)
        status, answer = self.server.json("POST", "/v1/chat/completions")
        self.assertEqual(status, 400)
        self.assertIn("the request body is no JSON", answer["error"]["message"])
        # Of what is no form the engine's server says nothing at all.
        status, _, data = self.server.ask("POST", "/v1/completions", b"x", Content_Type="multipart/form-data; boundary=x")
        self.assertEqual(status, 400)
        self.assertIn("takes no such request", json.loads(data)["error"]["message"])

    def test_a_client_that_goes_away_stops_its_answer(self):
        for path, body in (("/api/chat", STORY), ("/v1/chat/completions",
                           {"model": WORDS, "messages": user("Tell a story."), "max_tokens": 4000, "stream": True})):
            connection, answer, _ = self.server.stream(body, path)
            self.assertEqual(self.busy_slots(), 1)
            answer.close()
            connection.close()
            harness.wait_until(lambda: self.busy_slots() == 0)

    def test_a_client_that_goes_away_before_the_answer_begins(self):
        body = json.dumps(dict(STORY, stream=False)).encode()
        head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.server.ask("POST", "/api/chat", SHORT)
        with socket.create_connection(("127.0.0.1", self.server.port)) as gone:
            gone.sendall(head + body)
            harness.wait_until(lambda: self.busy_slots() == 1)
        harness.wait_until(lambda: self.busy_slots() == 0)

    def test_too_many_at_once(self):
        held = [self.server.stream(STORY) for _ in range(3)]
        status, headers, data = self.server.ask("POST", "/api/chat", SHORT)
        self.assertEqual(status, 429, data)
        self.assertGreater(int(headers["Retry-After"]), 0)
        self.assertEqual(self.server.ask("GET", "/api/version")[0], 200)
        for connection, answer, _ in held:
            answer.close()
            connection.close()
        harness.wait_until(lambda: self.server.ask("POST", "/api/chat", SHORT)[0] == 200)

    def test_what_is_no_request(self):
        for method, path, body, status in (
            ("POST", "/api/chat", "{", 400),
            ("POST", "/api/chat", "[]", 400),
            ("POST", "/api/chat", "", 400),
            ("POST", "/api/chat", b"\xff\xfe", 400),
            ("POST", "/api/chat", '{"a":' * 100000, 400),
            ("POST", "/api/chat", '{"model":5}', 400),
            ("POST", "/v1/chat/completions", "{}}", 400),
            ("POST", "/v1/chat/completions", '{"model":"\\u0000"}', 400),
            ("POST", "/v1/chat/completions", '{"messages":[{"content":"hi"}]}', 400),
            ("POST", "/v1/chat/completions", json.dumps({"messages": user("hi"), "tools": [{"type": "function"}]}), 400),
            ("POST", "/api/chat", json.dumps(dict(SHORT, tools=[{"type": "function"}])), 400),
            ("POST", "/v1/completions", "{}", 400),
            ("POST", "/v1/messages", "{}", 400),
            ("POST", "/api/show", '{"model":"../../etc/passwd"}', 404),
            ("GET", "/../../etc/passwd", None, 404),
            ("GET", "/api/../../etc/passwd", None, 404),
            ("GET", "/nothing", None, 404),
            ("GET", "/api/chat", None, 405),
            ("HEAD", "/v1/chat/completions", None, 405),
            ("HEAD", "/props", None, 405),
            ("GET", "/api/version%00", None, 400),
            ("GET", "/v1/models/%00", None, 400),
            ("POST", "/api/generate", json.dumps({"model": WORDS, "prompt": 5}), 400),
            ("POST", "/api/chat", json.dumps(dict(SHORT, tools="f")), 400),
            ("POST", "/v1/completions", '{"model":5,"prompt":"a"}', 400),
            ("POST", "/detokenize", '{"tokens":[99999999]}', 400),
            ("POST", "/api/chat", "x" * 2000000, 413),
            ("GET", "/" + "x" * 8200, None, 414),
            ("GET", "/" + "x" * 32700, None, 414),
            ("GET", "/" + "x" * 40000, None, 414),
            ("GET", "/api/version?" + "a&" * 100, None, 414),
            ("GET", "/api/version?" + "&".join(f"a{i}=1" for i in range(600)), None, 414),
            ("GET", "/api/version?" + "x" * 7900 + "&a" * 99, None, 200),
        ):
            got, _, data = self.server.ask(method, path, body)
            self.assertEqual(got, status, (method, path[:40], data[:200]))

    def test_head_is_get_without_the_body(self):
        for path in "/", "/health", "/v1/models", "/api/version", "/api/tags", "/api/ps", "/metrics":
            (status, headers, body), (_, _, whole) = (self.server.ask(method, path) for method in ("HEAD", "GET"))
            self.assertEqual((status, body), (200, b""), path)
            if path not in ("/api/ps", "/metrics"):
                self.assertEqual(int(headers["Content-Length"]), len(whole), path)

    def test_codings_that_are_not_served(self):
        for coding, status in ((b"Transfer-Encoding: gzip", b"501"), (b"Content-Encoding: gzip\r\nContent-Length: 2", b"415"),
                               (b"Content-Encoding: identity\r\nContent-Length: 2", b"400")):
            head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n" + coding + b"\r\n\r\n{}"
            self.assertEqual(self.first_line(head).split()[1], status, coding)

    def first_line(self, request):
        with socket.create_connection(("127.0.0.1", self.server.port)) as sender:
            sender.sendall(request)
            answer = b""
            while b"\r\n" not in answer:
                more = sender.recv(65536)
                if not more:
                    break
                answer += more
            return answer.split(b"\r\n")[0]

    def test_a_request_has_one_length(self):
        head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n"
        for lengths in (b"Content-Length: 2\r\nContent-Length: 40\r\n", b"Content-Length: 2\r\ncontent-length: 2\r\n",
                        b"Content-Length: 40\r\nTransfer-Encoding: chunked\r\n", b"Content-Length : 2\r\n",
                        b"Content-Length: 2\r\nHost: localhost\r\n"):
            self.assertIn(b" 400 ", self.first_line(head + lengths + b"\r\n{}"), lengths)
        self.assertIn(b" 400 ", self.first_line(head + b"Content-Length: 2\r\n\r\n{}"))  # no model: it was read

    def test_targets_with_a_host(self):
        for target in (b"http://localhost/api/version", b"HTTP://localhost:1/api/version?a=1"):
            self.assertIn(b" 200 ", self.first_line(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"), target)
        self.assertIn(b" 404 ", self.first_line(b"GET http://localhost/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"))

    def test_a_body_that_grows_beyond_the_limit(self):
        with socket.create_connection(("127.0.0.1", self.server.port)) as sender:
            sender.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(64):
                    sender.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sender.sendall(b"0\r\n\r\n")
            except OSError:
                pass
            self.assertIn(b" 413 ", sender.recv(65536))

    def test_bodies_of_many_are_not_all_kept(self):
        size = 900000 # of 1 MiB that one may have: eight such are kept
        body = b'{"model":"' + b"x" * size + b'"}'
        head = f"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        senders = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(12)]
        for sender in senders:
            sender.sendall(head + body[:-1])
        for sender in senders:
            sender.sendall(body[-1:])
        codes = sorted(sender.recv(12).split()[1] for sender in senders)
        self.assertEqual(set(codes), {b"404", b"429"})
        self.assertGreaterEqual(codes.count(b"404"), 8)
        for sender in senders:
            sender.close()
        # They are given back.
        status, _, data = self.server.ask("POST", "/api/show", body)
        self.assertEqual(status, 404, data)

    def test_files_are_taken_as_they_come(self):
        """Beyond the limit of bodies, by length and in pieces; what is broken off or not as announced leaves nothing."""
        data = os.urandom(1 << 20) * 8
        path = "/api/blobs/sha256:" + hashlib.sha256(data).hexdigest()
        pieces = lambda: iter([data[at:at + 300000] for at in range(0, len(data), 300000)])
        for body in (data, pieces()):
            status, _, answer = self.server.ask("POST", path, body)
            self.assertEqual(status, 201, answer)
        self.assertEqual(self.server.ask("HEAD", path)[0], 200)
        for wrong in "sha256:" + "0" * 64, "sha256:x":
            status, _, answer = self.server.ask("POST", "/api/blobs/" + wrong, data)
            self.assertEqual((status, list(json.loads(answer))), (400, ["error"]))
        self.assertEqual(self.server.ask("POST", "/api/blobs/sha256:" + "0" * 64, data, Origin="http://evil.example")[0], 403)
        head = f"POST /api/blobs/sha256:{'1' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port)) as gone:
            gone.sendall(head.encode() + data[:3 << 20])
        staging = os.path.join(self.server.models, ".staging")
        harness.wait_until(lambda: not os.path.exists(staging) or os.listdir(staging) == [])
        self.assertEqual(len(os.listdir(os.path.join(self.server.models, ".blobs"))), 1)

    def test_pages_and_names_of_elsewhere(self):
        self.assertEqual(self.server.ask("GET", "/api/tags", Host="evil.example")[0], 403)
        self.assertEqual(self.server.ask("GET", "/api/tags", Origin="http://evil.example")[0], 403)
        status, headers, _ = self.server.ask("OPTIONS", "/api/chat", Origin="http://localhost:3000",
                                             Access_Control_Request_Headers="x-mine")
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (200, "http://localhost:3000"))
        self.assertEqual(headers["Access-Control-Allow-Headers"], "x-mine")
        self.assertEqual(self.server.ask("OPTIONS", "/api/chat", Origin="http://evil.example")[0], 403)

    def test_many_connections_at_rest(self):
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(300)]
        self.assertEqual(self.server.ask("GET", "/api/version")[0], 200)
        for connection in idle:
            connection.close()
        def descriptors():
            return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
        harness.wait_until(lambda: descriptors() < 100)


class Descriptors(unittest.TestCase):
    def test_as_many_as_there_may_be(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
            server = harness.Server("--memory", "1G", "--threads", "1", models=[WORDS])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        with server:
            resting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
            status, _, data = server.ask("POST", "/api/chat", SHORT)
            self.assertEqual(status, 200, data)
            for connection in resting:
                connection.close()


class Keys(unittest.TestCase):
    def test_key(self):
        with harness.Server("--api-key", "secret", "--default", WORDS, "--memory", "1G", "--threads", "1",
                            models=[WORDS], env={"OMP_WAIT_POLICY": harness.NO_POLICY}) as server:
            self.assertEqual(server.ask("GET", "/api/tags")[0], 401)
            self.assertEqual(server.ask("GET", "/api/tags", Authorization="Bearer wrong")[0], 401)
            self.assertEqual(server.ask("GET", "/api/tags", Authorization="Bearer secret")[0], 200)
            self.assertEqual(server.ask("GET", "/api/tags", x_api_key="secret")[0], 200)
            self.assertEqual(server.ask("GET", "/health")[0], 200)
            # A name that no model has is that of the default one, for llama.cpp's routes.
            other = dict(model="gpt-4", messages=user("hi"), max_tokens=1)
            self.assertEqual(server.ask("POST", "/v1/chat/completions", other, Authorization="Bearer secret")[0], 200)
            self.assertEqual(server.ask("POST", "/api/chat", other, Authorization="Bearer secret")[0], 404)
            with open(f"/proc/{server.engines()[0]}/environ") as file:
                looks = [word for word in file.read().split("\0") if word.startswith("GOMP_SPINCOUNT=")]
            # Held whole: by how many cores there are.
            self.assertIn(looks, (["GOMP_SPINCOUNT=1021"], ["GOMP_SPINCOUNT=40009"]))
            self.assertNotIn("secret", "".join(server.lines))

    def test_no_listening_beyond_this_machine_without_one(self):
        with self.assertRaisesRegex(RuntimeError, "--api-key"):
            harness.Server("--host", "0.0.0.0", "--memory", "1G", models=[WORDS])


def has_v6():
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


class Addresses(unittest.TestCase):
    def test_several_are_listened_on(self):
        hosts = ["127.0.0.1", "127.0.0.2"] + ["::1"] * has_v6()
        with harness.Server("--host", ",".join(hosts), "--memory", "1G", models=[WORDS]) as server:
            harness.wait_until(lambda: any("1 model, which may use 1 GiB together" in line for line in server.lines))
            for host in hosts:
                url = f"listening on http://[{host}]:{server.port}" if ":" in host else f"listening on http://{host}:{server.port}"
                self.assertTrue(any(line.endswith(url + "\n") for line in server.lines), server.lines)
                connection = http.client.HTTPConnection(host, server.port, timeout=60)
                connection.request("GET", "/api/version")
                self.assertEqual(connection.getresponse().status, 200)
                connection.close()
            with socket.create_connection((hosts[-1], server.port)) as connection:
                self.assertEqual(server.stop(), 0)
                try:
                    self.assertEqual(connection.recv(1), b"")
                except ConnectionResetError:
                    pass # it was not taken yet when the listening socket went

    def test_one_server_for_an_address(self):
        with harness.Server("--memory", "1G", models=[WORDS]) as server:
            with self.assertRaisesRegex(RuntimeError, "in use"):
                harness.Server("--port", str(server.port), "--memory", "1G", models=[WORDS])

    def test_each_is_looked_at(self):
        for hosts, message in (("127.0.0.1,0.0.0.0", "--api-key"), ("127.0.0.1,nowhere", "--api-key"), ("", "no address")):
            with self.assertRaisesRegex(RuntimeError, message):
                harness.Server("--host", hosts, "--memory", "1G", models=[WORDS])


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""What a server owes besides answers: limits, keys, faults, and an end in order. Plain sockets, SmolLM2 alone."""
import base64
import hashlib
import http.client
import http.server
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import harness
from harness import DENSE


def user(text):
    return [{"role": "user", "content": text}]


STORY = {"model": DENSE, "messages": user("Write a long story."), "options": {"num_predict": 2000, "temperature": 0}}
SHORT = {"model": DENSE, "messages": user("hi"), "stream": False, "options": {"num_predict": 2}}


class Client:
    def __init__(self, server):
        self.server = server

    def ask(self, method, path, body=None, **headers):
        """One request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=300)
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def stream(self, body, path="/api/chat"):
        """A connection on which the answer has begun."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=300)
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        line = answer.readline()
        return connection, answer, line

    def busy_slots(self):
        status, _, data = self.ask("GET", f"/slots?model={DENSE}")
        assert status == 200, data
        return sum(slot["is_processing"] for slot in json.loads(data))


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--threads", "1", "--memory", "2G", "--max-body", "1M", "--max-requests", "3",
                                    "--parallel", "3", models=[DENSE])
        cls.client = Client(cls.server)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_killed_in_the_middle(self):
        for _ in range(2):
            connection, answer, line = self.client.stream(STORY)
            self.assertIn(b"message", line)
            for pid in self.server.engines():
                os.kill(pid, signal.SIGKILL)
            last = answer.read().splitlines()[-1]
            self.assertIn("signal 9", json.loads(last)["error"])
            connection.close()
            status, _, data = self.client.ask("POST", "/api/chat", SHORT)
            self.assertEqual(status, 200, data)

    def test_killed_in_the_middle_of_events(self):
        body = {"model": DENSE, "messages": user("Write a long story."), "max_tokens": 2000, "stream": True}
        connection, answer, line = self.client.stream(body, "/v1/chat/completions")
        self.assertTrue(line.startswith(b"data: "), line)
        for pid in self.server.engines():
            os.kill(pid, signal.SIGKILL)
        with self.assertRaises(http.client.IncompleteRead) as broken:
            answer.read()
        self.assertIn(b"signal 9", broken.exception.partial)
        connection.close()

    def test_killed_in_the_middle_of_messages(self):
        body = {"model": DENSE, "messages": user("Write a long story."), "max_tokens": 2000, "stream": True}
        connection, answer, line = self.client.stream(body, "/v1/messages")
        self.assertEqual(line, b"event: message_start\n")
        for pid in self.server.engines():
            os.kill(pid, signal.SIGKILL)
        with self.assertRaises(http.client.IncompleteRead) as broken:
            answer.read()
        event, data = broken.exception.partial.strip().splitlines()[-2:]
        self.assertEqual(event, b"event: error")
        error = json.loads(data.removeprefix(b"data: "))
        self.assertEqual((error["type"], error["error"]["type"]), ("error", "api_error"))
        self.assertIn("signal 9", error["error"]["message"])
        connection.close()

    def test_refusals_of_the_engine_are_of_the_clients_api(self):
        body = {"model": DENSE, "max_tokens": 5, "messages": [{"role": "user", "content": 5}]}
        status, _, data = self.client.ask("POST", "/v1/messages", body)
        self.assertEqual((status, json.loads(data)["type"]), (400, "error"), data)
        status, _, data = self.client.ask("POST", "/v1/chat/completions", body)
        self.assertEqual((status, json.loads(data)["error"]["code"]), (400, 400), data)
        # Of what is no form the engine's server says nothing at all.
        status, _, data = self.client.ask("POST", "/v1/completions", b"x", Content_Type="multipart/form-data; boundary=x")
        self.assertEqual(status, 400)
        self.assertIn("takes no such request", json.loads(data)["error"]["message"])

    def test_a_client_that_goes_away_stops_its_answer(self):
        for path, body in (("/api/chat", STORY), ("/v1/chat/completions",
                           {"model": DENSE, "messages": user("Tell a story."), "max_tokens": 2000, "stream": True})):
            connection, answer, _ = self.client.stream(body, path)
            self.assertEqual(self.client.busy_slots(), 1)
            answer.close()
            connection.close()
            harness.wait_until(lambda: self.client.busy_slots() == 0)

    def test_a_client_that_goes_away_before_the_answer_begins(self):
        body = json.dumps(dict(STORY, stream=False)).encode()
        head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.client.ask("POST", "/api/chat", SHORT)
        with socket.create_connection(("127.0.0.1", self.server.port)) as gone:
            gone.sendall(head + body)
            harness.wait_until(lambda: self.client.busy_slots() == 1)
        harness.wait_until(lambda: self.client.busy_slots() == 0)

    def test_too_many_at_once(self):
        held = [self.client.stream(STORY) for _ in range(3)]
        status, headers, data = self.client.ask("POST", "/api/chat", SHORT)
        self.assertEqual(status, 429, data)
        self.assertGreater(int(headers["Retry-After"]), 0)
        self.assertEqual(self.client.ask("GET", "/api/version")[0], 200)
        for connection, answer, _ in held:
            answer.close()
            connection.close()
        harness.wait_until(lambda: self.client.ask("POST", "/api/chat", SHORT)[0] == 200)

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
            ("POST", "/api/generate", json.dumps({"model": DENSE, "prompt": 5}), 400),
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
            got, _, data = self.client.ask(method, path, body)
            self.assertEqual(got, status, (method, path[:40], data[:200]))

    def test_head_is_get_without_the_body(self):
        for path in "/", "/health", "/v1/models", "/api/version", "/api/tags", "/api/ps", "/metrics":
            (status, headers, body), (_, _, whole) = (self.client.ask(method, path) for method in ("HEAD", "GET"))
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
        status, _, data = self.client.ask("POST", "/api/show", body)
        self.assertEqual(status, 404, data)

    def test_files_are_taken_as_they_come(self):
        """Beyond the limit of bodies, by length and in pieces; what is broken off or not as announced leaves nothing."""
        data = os.urandom(1 << 20) * 8
        path = "/api/blobs/sha256:" + hashlib.sha256(data).hexdigest()
        pieces = lambda: iter([data[at:at + 300000] for at in range(0, len(data), 300000)])
        for body in (data, pieces()):
            status, _, answer = self.client.ask("POST", path, body)
            self.assertEqual(status, 201, answer)
        self.assertEqual(self.client.ask("HEAD", path)[0], 200)
        for wrong in "sha256:" + "0" * 64, "sha256:x":
            status, _, answer = self.client.ask("POST", "/api/blobs/" + wrong, data)
            self.assertEqual((status, list(json.loads(answer))), (400, ["error"]))
        self.assertEqual(self.client.ask("POST", "/api/blobs/sha256:" + "0" * 64, data, Origin="http://evil.example")[0], 403)
        head = f"POST /api/blobs/sha256:{'1' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port)) as gone:
            gone.sendall(head.encode() + data[:3 << 20])
        staging = os.path.join(self.server.models, ".staging")
        harness.wait_until(lambda: not os.path.exists(staging) or os.listdir(staging) == [])
        self.assertEqual(len(os.listdir(os.path.join(self.server.models, ".blobs"))), 1)

    def test_pages_and_names_of_elsewhere(self):
        self.assertEqual(self.client.ask("GET", "/api/tags", Host="evil.example")[0], 403)
        self.assertEqual(self.client.ask("GET", "/api/tags", Origin="http://evil.example")[0], 403)
        status, headers, _ = self.client.ask("OPTIONS", "/api/chat", Origin="http://localhost:3000",
                                             Access_Control_Request_Headers="x-mine")
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (200, "http://localhost:3000"))
        self.assertEqual(headers["Access-Control-Allow-Headers"], "x-mine")
        self.assertEqual(self.client.ask("OPTIONS", "/api/chat", Origin="http://evil.example")[0], 403)

    def test_many_connections_at_rest(self):
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(300)]
        self.assertEqual(self.client.ask("GET", "/api/version")[0], 200)
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
            server = harness.Server("--memory", "1G", "--threads", "1", models=[DENSE])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        with server:
            resting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
            status, _, data = Client(server).ask("POST", "/api/chat", SHORT)
            self.assertEqual(status, 200, data)
            for connection in resting:
                connection.close()


class Keys(unittest.TestCase):
    def test_key(self):
        with harness.Server("--api-key", "secret", "--default", DENSE, "--memory", "1G", "--threads", "1",
                            models=[DENSE], env={"OMP_WAIT_POLICY": harness.NO_POLICY}) as server:
            client = Client(server)
            self.assertEqual(client.ask("GET", "/api/tags")[0], 401)
            self.assertEqual(client.ask("GET", "/api/tags", Authorization="Bearer wrong")[0], 401)
            self.assertEqual(client.ask("GET", "/api/tags", Authorization="Bearer secret")[0], 200)
            self.assertEqual(client.ask("GET", "/api/tags", x_api_key="secret")[0], 200)
            self.assertEqual(client.ask("GET", "/health")[0], 200)
            # A name that no model has is that of the default one, for llama.cpp's routes.
            other = dict(model="gpt-4", messages=user("hi"), max_tokens=1)
            self.assertEqual(client.ask("POST", "/v1/chat/completions", other, Authorization="Bearer secret")[0], 200)
            self.assertEqual(client.ask("POST", "/api/chat", other, Authorization="Bearer secret")[0], 404)
            with open(f"/proc/{server.engines()[0]}/environ") as file:
                looks = [word for word in file.read().split("\0") if word.startswith("GOMP_SPINCOUNT=")]
            # Held whole: by how many cores there are.
            self.assertIn(looks, (["GOMP_SPINCOUNT=1021"], ["GOMP_SPINCOUNT=40009"]))
            self.assertNotIn("secret", "".join(server.lines))

    def test_no_listening_beyond_this_machine_without_one(self):
        with self.assertRaisesRegex(RuntimeError, "--api-key"):
            harness.Server("--host", "0.0.0.0", "--memory", "1G", models=[DENSE])


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
        with harness.Server("--host", ",".join(hosts), "--memory", "1G", models=[DENSE]) as server:
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
        with harness.Server("--memory", "1G", models=[DENSE]) as server:
            with self.assertRaisesRegex(RuntimeError, "in use"):
                harness.Server("--port", str(server.port), "--memory", "1G", models=[DENSE])

    def test_each_is_looked_at(self):
        for hosts, message in (("127.0.0.1,0.0.0.0", "--api-key"), ("127.0.0.1,nowhere", "--api-key"), ("", "no address")):
            with self.assertRaisesRegex(RuntimeError, message):
                harness.Server("--host", hosts, "--memory", "1G", models=[DENSE])


class End(unittest.TestCase):
    def test_who_comes_while_it_ends_is_refused(self):
        with harness.Server("--memory", "1G", "--drain", "60", models=[DENSE]) as server:
            connection, answer, _ = Client(server).stream(STORY)
            server.process.send_signal(signal.SIGTERM)
            def refused():
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=10).close()
                    return False
                except ConnectionRefusedError:
                    return True
                except ConnectionResetError: # it waited to be accepted when the socket was closed
                    return False
            harness.wait_until(refused)
            # Another one may take its place at once.
            with harness.Server("--port", str(server.port), "--memory", "1G", models=[DENSE]) as other:
                self.assertEqual(Client(other).ask("GET", "/api/version")[0], 200)
            connection.close()

    def test_what_runs_may_end(self):
        server = harness.Server("--memory", "1G", "--threads", "1", models=[DENSE])
        client = Client(server)
        body = {"model": DENSE, "messages": user("Count."), "options": {"num_predict": 60, "temperature": 0}}
        connection, answer, _ = client.stream(body)
        engines = server.engines()
        self.assertEqual(len(engines), 1)
        server.process.send_signal(signal.SIGTERM)
        lines = answer.read().splitlines()
        self.assertTrue(json.loads(lines[-1])["done"])
        connection.close()
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(f"/proc/{engines[0]}"))

    def test_what_runs_too_long_is_broken_off(self):
        server = harness.Server("--memory", "1G", "--threads", "1", "--drain", "0.2", models=[DENSE])
        connection, answer, _ = Client(server).stream(STORY)
        self.assertEqual(server.stop(), 0)
        # Its last line says why it ends.
        self.assertIn("shutting down", json.loads(answer.read().splitlines()[-1])["error"])
        connection.close()

    def test_who_waits_at_the_end_is_told(self):
        server = harness.Server("--memory", "1G", "--threads", "1", "--parallel", "1", "--drain", "0.2", models=[DENSE])
        client = Client(server)
        connection, _, _ = client.stream(STORY)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(client.ask("POST", "/v1/chat/completions",
                                   {"model": DENSE, "messages": user("hi"), "max_tokens": 2})))
        waiting.start()
        harness.wait_until(lambda: b'"active":2' in client.ask("GET", "/api/hypura/status")[2])
        self.assertEqual(server.stop(), 0)
        waiting.join()
        status, _, data = answers[0]
        self.assertEqual(status, 503, data)
        self.assertIn("shutting down", json.loads(data)["error"]["message"])
        connection.close()

    def test_a_second_signal_does_not_wait(self):
        server = harness.Server("--memory", "1G", "--threads", "1", "--drain", "100000", models=[DENSE])
        connection, answer, _ = Client(server).stream(STORY)
        server.process.send_signal(signal.SIGTERM)
        harness.wait_until(lambda: any("shutting down" in line for line in server.lines))
        self.assertEqual(server.stop(), 0)
        self.assertIn("shutting down", json.loads(answer.read().splitlines()[-1])["error"])
        connection.close()

    def test_engines_follow_a_front_that_is_killed(self):
        server = harness.Server("--memory", "1G", "--threads", "1", models=[DENSE])
        connection, _, _ = Client(server).stream(STORY)
        engines = server.engines()
        server.stop(signal.SIGKILL)
        harness.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in engines))
        connection.close()


class Conversations(unittest.TestCase):
    """What a conversation's first turn computed is there for the next one, also after a restart."""

    def turn(self, server, messages):
        status, _, data = Client(server).ask("POST", "/v1/chat/completions", {
            "model": DENSE, "messages": messages, "max_tokens": 8, "temperature": 0})
        self.assertEqual(status, 200, data)
        answer = json.loads(data)
        messages += [answer["choices"][0]["message"]] + user("And what else?")
        return answer["usage"]["prompt_tokens"], answer["timings"]["cache_n"]

    def test_over_a_restart(self):
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        cache = harness.make_cache(os.path.join(folder, "cache"))
        states = os.path.join(cache, "conversations")
        options = dict(models=[DENSE], folder=folder, env={"HYPURA_CACHE_DIR": cache})
        messages = user("Remember: " + ", ".join(f"the number of {i} is {i * 7 % 61}" for i in range(20)))
        try:
            with harness.Server("--memory", "1G", "--threads", "1", **options) as server:
                first, cached = self.turn(server, messages)
                self.assertEqual(cached, 0)
                second, cached = self.turn(server, messages)
                self.assertGreaterEqual(cached, first)
            files = [name for _, _, names in os.walk(states) for name in names]
            self.assertEqual(len(files), 1, files) # the second turn's in place of the first one's
            with harness.Server("--memory", "1G", "--threads", "1", **options) as server:
                _, cached = self.turn(server, user("Say hello.")) # another conversation takes nothing away
                third, cached = self.turn(server, messages)
                self.assertGreaterEqual(cached, second)
            with harness.Server("--memory", "1G", "--threads", "1", "--cache-type-k", "q8_0", **options) as server:
                _, cached = self.turn(server, messages) # what was kept is of other numbers
                self.assertEqual(cached, 0)
            with harness.Server("--memory", "1G", "--threads", "1", "--state-limit", "1K", **options) as server:
                self.turn(server, user("Another one. " + "Go on. " * 100))
            self.assertEqual([name for _, _, names in os.walk(states) for name in names], [])
        finally:
            shutil.rmtree(folder)


class Contexts(unittest.TestCase):
    def test_answers_longer_than_the_context(self):
        """They go on without what is oldest, unless a request wants their end."""
        with harness.Server("--context-shift", "--context", "256", "--memory", "1G", "--threads", "1", models=[DENSE]) as server:
            client = Client(server)
            def ask(path, **body):
                status, _, data = client.ask("POST", path, {"model": DENSE, **body})
                self.assertEqual(status, 200, data)
                return data
            text = " ".join(f"{i}," for i in range(1, 66)) # most of the context
            answer = json.loads(ask("/v1/completions", prompt=text, temperature=0, max_tokens=80, ignore_eos=True))
            self.assertGreater(answer["usage"]["prompt_tokens"], 200)
            self.assertEqual(answer["usage"]["completion_tokens"], 80)
            options = {"temperature": 0, "num_predict": 80}
            last = json.loads(ask("/api/generate", prompt=text, raw=True, options=options).splitlines()[-1])
            self.assertEqual((last["eval_count"], last["done_reason"]), (80, "length"))
            for stream in True, False:
                lines = ask("/api/generate", prompt=text, raw=True, options=options, shift=False, stream=stream).splitlines()
                last = json.loads(lines[-1])
                self.assertEqual((last["eval_count"] + last["prompt_eval_count"], last["done_reason"]), (256, "length"))
                self.assertTrue(last["done"])
            self.assertEqual(client.ask("POST", "/api/generate", {"model": DENSE, "prompt": "a", "shift": "no"})[0], 400)


class Made(unittest.TestCase):
    def test_the_program_answers_as_the_server_does(self):
        """What a model was made with is the same for both."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        made = {"model": "mario", "from": DENSE, "system": "You are Mario.", "stream": False,
                "parameters": {"temperature": 0, "num_predict": 24, "num_ctx": 512, "repeat_penalty": 1.3},
                "messages": [{"role": "user", "content": "Where are you?"}, {"role": "assistant", "content": "In a castle."}]}
        with harness.Server("--memory", "1G", "--threads", "1", "--parallel", "1", folder=folder, models=[DENSE]) as server:
            client = Client(server)
            self.assertEqual(client.ask("POST", "/api/create", made)[0], 200)
            body = {"model": "mario", "stream": False, "messages": user("Who are you?")}
            there = json.loads(client.ask("POST", "/api/chat", body)[2])["message"]["content"]
        words = [harness.HYPURA, "run", "mario", "Who are you?", "--threads", "1"]
        env = dict(os.environ, OMP_WAIT_POLICY="passive", HYPURA_CACHE_DIR=harness.CACHE, HYPURA_MODELS=os.path.join(folder, "models"))
        here = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
        self.assertEqual(here.returncode, 0, here.stderr)
        self.assertEqual(here.stdout[:-1], there)


class Constraints(unittest.TestCase):
    def test_what_cannot_be_understood_loads_nothing(self):
        schema = {"type": "nonsense"}
        chat = {"model": DENSE, "max_tokens": 4, "messages": user("Hello.")}
        bad = (("/v1/chat/completions", dict(chat, grammar="root = x"), "expecting ::="),
               ("/v1/chat/completions", dict(chat, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}),
                "nonsense"),
               ("/v1/responses", {"model": DENSE, "input": "Hello.", "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}},
                "nonsense"),
               ("/completion", {"model": DENSE, "prompt": "Hello.", "json_schema": schema}, "nonsense"),
               ("/api/chat", dict(SHORT, format=schema), "nonsense"),
               ("/api/generate", dict(SHORT, prompt="Hello.", format=schema), "nonsense"))
        with harness.Server("--memory", "1G", "--threads", "1", "--context", "512", models=[DENSE]) as server:
            client = Client(server)
            loaded = lambda: json.loads(client.ask("GET", "/api/ps")[2])["models"]
            for path, body, why in bad:
                status, _, data = client.ask("POST", path, body)
                self.assertEqual(status, 400, (path, data))
                self.assertIn(why, data.decode())
            self.assertEqual(loaded(), [])
            # One that names a token is the model's to understand; a good one is taken, and then the engine tells by itself.
            for grammar in 'root ::= "a"+ <|im_end|>', 'root ::= "abc"':
                status, _, data = client.ask("POST", "/v1/chat/completions", dict(chat, grammar=grammar))
                self.assertEqual(status, 200, data)
            self.assertEqual(json.loads(data)["choices"][0]["message"]["content"], "abc")
            self.assertEqual(len(loaded()), 1)
            for path, body, _ in bad:
                self.assertEqual(client.ask("POST", path, body)[0], 400, path)


class Images(unittest.TestCase):
    """A projector with random weights says nothing about a picture; that it reaches the model shows in the tokens."""

    def test_pictures_reach_the_model(self):
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        os.mkdir(os.path.join(folder, "models"))
        harness.write_projector(os.path.join(folder, "models", DENSE + ".mmproj.gguf"), 576)
        with harness.Server("--memory", "1G", "--threads", "1", "--context", "512", folder=folder) as server:
            client = Client(server)
            pictures = [harness.picture(200), harness.picture(20)]

            def ask(path, body):
                status, _, data = client.ask("POST", path, body)
                self.assertEqual(status, 200, data)
                return json.loads(data)

            def chat(images):
                message = {"role": "user", "content": "What is this?", "images": images}
                return ask("/api/chat", dict(SHORT, messages=[message]))["prompt_eval_count"]

            def generate(images):
                body = dict(SHORT, prompt="What is this?", images=images)
                return ask("/api/generate", body)["prompt_eval_count"]

            def openai(images):
                parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + image}} for image in images]
                body = {"model": DENSE, "max_tokens": 2, "messages": user(parts + [{"type": "text", "text": "What is this?"}])}
                return ask("/v1/chat/completions", body)["usage"]["prompt_tokens"]

            for count in chat, generate, openai:
                none, one, two = (count(pictures[:n]) for n in range(3))
                self.assertGreaterEqual(one - none, 4, count) # its four tokens, and what the server puts around them
                self.assertGreaterEqual(two - one, 4, count)
            self.assertIn("vision", ask("/api/show", {"model": DENSE})["capabilities"])
            # One that is named by its address is fetched by the front, which knows https as well, for all three APIs.
            agents = []

            class Pictures(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    agents.append(self.headers["User-Agent"])
                    self.send_response({"/0.png": 200, "/moved": 302}.get(self.path, 404))
                    self.send_header("Location", "/0.png")
                    self.end_headers()
                    self.wfile.write(base64.b64decode(pictures[0]) if self.path == "/0.png" else b"")

                def log_message(self, *_):
                    pass

            web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
            threading.Thread(target=web.serve_forever, daemon=True).start()
            self.addCleanup(web.server_close)
            self.addCleanup(web.shutdown)
            address = f"http://127.0.0.1:{web.server_port}/"

            def by_address(url):
                text = {"type": "text", "text": "What is this?"}
                return [client.ask("POST", path, dict(body, model=DENSE)) for path, body in (
                    ("/v1/chat/completions", {"max_tokens": 2, "messages": user([{"type": "image_url", "image_url": {"url": url}}, text])}),
                    ("/v1/responses", {"max_output_tokens": 2, "input": user(
                        [{"type": "input_image", "image_url": url}, dict(text, type="input_text")])}),
                    ("/v1/messages", {"max_tokens": 2, "messages": user([{"type": "image", "source": {"type": "url", "url": url}}, text])}))]

            for name in "0.png", "moved":
                answers = by_address(address + name)
                self.assertEqual([status for status, _, _ in answers], [200] * 3, answers)
                usages = [json.loads(data)["usage"] for _, _, data in answers]
                self.assertEqual(usages[0]["prompt_tokens"], openai(pictures[:1]))
                self.assertEqual(usages[1]["input_tokens"], usages[0]["prompt_tokens"])
            self.assertEqual(len(agents), 9)
            self.assertTrue(all(agent.startswith("hypura/") for agent in agents), agents)
            for url in address + "nothing", "https://127.0.0.1:1/0.png":
                for status, _, data in by_address(url):
                    self.assertEqual(status, 400, data)
                    self.assertIn("a picture cannot be fetched", data.decode())
            # A model without a projector takes none, and neither does this one what is no picture.
            image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + pictures[0]}}
            for path, body in (("/api/chat", dict(SHORT, model=harness.MOE, messages=[dict(user("hi")[0], images=pictures)])),
                               ("/api/generate", dict(SHORT, model=harness.MOE, prompt="hi", images=pictures)),
                               ("/v1/chat/completions", {"model": harness.MOE, "messages": user([image])}),
                               ("/v1/responses", {"model": harness.MOE, "input": user([dict(
                                   type="input_image", image_url="data:image/png;base64," + pictures[0])])}),
                               ("/v1/messages", {"model": harness.MOE, "max_tokens": 2, "messages": user([dict(type="image", source=dict(
                                   type="base64", media_type="image/png", data=pictures[0]))])}),
                               ("/api/chat", dict(SHORT, messages=[dict(user("hi")[0], images=["AAAA"])]))):
                status, _, data = client.ask("POST", path, body)
                self.assertEqual(status, 400, (path, data))
                self.assertEqual("it has no projector" in data.decode(), body["model"] == harness.MOE, data)
            loaded = [m["name"] for m in json.loads(client.ask("GET", "/api/ps")[2])["models"]]
            self.assertEqual(loaded, [DENSE + ":latest"]) # the other one was not, to be told that


class Memory(unittest.TestCase):
    def test_an_idle_model_makes_room(self):
        with harness.Server("--memory", "700M", "--threads", "1", "--parallel", "1") as server:
            client = Client(server)
            loaded = lambda: [m["name"] for m in json.loads(client.ask("GET", "/api/ps")[2])["models"]]
            self.assertEqual(client.ask("POST", "/api/chat", SHORT)[0], 200)
            self.assertEqual(loaded(), [DENSE + ":latest"])
            self.assertEqual(client.ask("POST", "/api/chat", dict(SHORT, model=harness.MOE))[0], 200)
            self.assertIn(harness.MOE + ":latest", loaded())
            used = sum(m["size"] for m in json.loads(client.ask("GET", "/api/ps")[2])["models"])
            self.assertLessEqual(used, 700 << 20)

    def test_an_idle_model_gives_up_its_pool(self):
        with harness.Server("--memory", "560M", "--threads", "1", "--parallel", "1") as server:
            client = Client(server)
            def sizes():
                return {m["name"]: m["size"] for m in json.loads(client.ask("GET", "/api/ps")[2])["models"]}
            moe, dense = harness.MOE + ":latest", DENSE + ":latest"
            options = dict(SHORT["options"], num_ctx=2048)
            question = lambda name: client.ask("POST", "/api/chat", dict(SHORT, model=name, options=options))
            self.assertEqual(question(harness.MOE)[0], 200)
            alone = sizes()[moe]
            self.assertEqual(question(DENSE)[0], 200)
            self.assertEqual(set(sizes()), {moe, dense})
            self.assertLess(sizes()[moe], alone)
            self.assertLessEqual(sum(sizes().values()), 560 << 20)
            self.assertEqual(question(harness.MOE)[0], 200)
            client.ask("POST", "/api/generate", json.dumps({"model": DENSE, "keep_alive": 0}))
            harness.wait_until(lambda: sizes().get(moe, 0) > alone * 0.9)
            self.assertEqual(question(harness.MOE)[0], 200)

    def test_a_model_that_can_never_fit_is_refused(self):
        with harness.Server("--memory", "100M", "--threads", "1", models=[harness.MOE]) as server:
            status, headers, data = Client(server).ask("POST", "/api/chat", dict(SHORT, model=harness.MOE))
            self.assertEqual(status, 500)
            self.assertNotIn("Retry-After", headers)
            self.assertRegex(json.loads(data)["error"], r"requires more system memory than is available \(100.*bytes\): .*bytes")


if __name__ == "__main__":
    unittest.main(verbosity=2)

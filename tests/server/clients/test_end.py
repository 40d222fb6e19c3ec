"""How a server and its engines end: in order, in the middle of an answer, killed, hanging. Plain sockets, one tiny model."""
import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import unittest

import harness
from harness import DENSE, SHORT, STORY, WORDS, user


class Killed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--threads", "1", "--memory", "1G", "--parallel", "1", models=[WORDS])

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_killed_in_the_middle(self):
        for _ in range(2):
            connection, answer, line = self.server.stream(STORY)
            self.assertIn(b"message", line)
            for pid in self.server.engines():
                os.kill(pid, signal.SIGKILL)
            last = answer.read().splitlines()[-1]
            self.assertIn("signal 9", json.loads(last)["error"])
            connection.close()
            status, _, data = self.server.ask("POST", "/api/chat", SHORT)
            self.assertEqual(status, 200, data)

    def test_killed_in_the_middle_of_events(self):
        body = {"model": WORDS, "messages": user("Write a long story."), "max_tokens": 4000, "stream": True}
        connection, answer, line = self.server.stream(body, "/v1/chat/completions")
        self.assertTrue(line.startswith(b"data: "), line)
        for pid in self.server.engines():
            os.kill(pid, signal.SIGKILL)
        with self.assertRaises(http.client.IncompleteRead) as broken:
            answer.read()
        self.assertIn(b"signal 9", broken.exception.partial)
        connection.close()

    def test_killed_in_the_middle_of_messages(self):
        body = {"model": WORDS, "messages": user("Write a long story."), "max_tokens": 4000, "stream": True}
        connection, answer, line = self.server.stream(body, "/v1/messages")
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


class End(unittest.TestCase):
    def test_who_comes_while_it_ends_is_refused(self):
        with harness.Server("--memory", "1G", "--drain", "60", models=[WORDS]) as server:
            connection, answer, _ = server.stream(STORY)
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
            with harness.Server("--port", str(server.port), "--memory", "1G", models=[WORDS]) as other:
                self.assertEqual(other.ask("GET", "/api/version")[0], 200)
            connection.close()

    def test_what_runs_may_end(self):
        server = harness.Server("--memory", "1G", "--threads", "1", models=[WORDS])
        body = {"model": WORDS, "messages": user("Count."), "options": {"num_predict": 60, "temperature": 0}}
        connection, answer, _ = server.stream(body)
        engines = server.engines()
        self.assertEqual(len(engines), 1)
        server.process.send_signal(signal.SIGTERM)
        lines = answer.read().splitlines()
        self.assertTrue(json.loads(lines[-1])["done"])
        connection.close()
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(f"/proc/{engines[0]}"))

    def test_what_runs_too_long_is_broken_off(self):
        server = harness.Server("--memory", "1G", "--threads", "1", "--drain", "0.2", models=[WORDS])
        connection, answer, _ = server.stream(STORY)
        self.assertEqual(server.stop(), 0)
        # Its last line says why it ends.
        self.assertIn("shutting down", json.loads(answer.read().splitlines()[-1])["error"])
        connection.close()

    def test_who_waits_at_the_end_is_told(self):
        server = harness.Server("--memory", "1G", "--threads", "1", "--parallel", "1", "--drain", "0.2", models=[WORDS])
        connection, _, _ = server.stream(STORY)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(server.ask("POST", "/v1/chat/completions",
                                   {"model": WORDS, "messages": user("hi"), "max_tokens": 2})))
        waiting.start()
        harness.wait_until(lambda: b'"active":2' in server.ask("GET", "/api/hypura/status")[2])
        self.assertEqual(server.stop(), 0)
        waiting.join()
        status, _, data = answers[0]
        self.assertEqual(status, 503, data)
        self.assertIn("shutting down", json.loads(data)["error"]["message"])
        connection.close()

    def test_a_second_signal_does_not_wait(self):
        server = harness.Server("--memory", "1G", "--threads", "1", "--drain", "100000", models=[WORDS])
        connection, answer, _ = server.stream(STORY)
        server.process.send_signal(signal.SIGTERM)
        harness.wait_until(lambda: any("shutting down" in line for line in server.lines))
        self.assertEqual(server.stop(), 0)
        self.assertIn("shutting down", json.loads(answer.read().splitlines()[-1])["error"])
        connection.close()

    def test_engines_follow_a_front_that_is_killed(self):
        server = harness.Server("--memory", "1G", "--threads", "1", models=[WORDS])
        connection, _, _ = server.stream(STORY)
        engines = server.engines()
        server.stop(signal.SIGKILL)
        harness.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in engines))
        connection.close()


class Hanging(unittest.TestCase):
    def test_an_engine_that_hangs_is_ended(self):
        """Its conversation is not saved, and nobody waits for that."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        with harness.Server("--threads", "1", "--memory", "1G", "--drain", "1", models=[WORDS],
                            env={"HYPURA_CACHE_DIR": harness.make_cache(folder)}) as server:
            words = " ".join(f"word{i}" for i in range(100))
            status, answer = server.json("POST", "/api/generate", {"model": WORDS, "prompt": words, "stream": False,
                                                                   "options": {"num_predict": 2}})
            self.assertEqual(status, 200, answer)
            for pid in server.engines():
                os.kill(pid, signal.SIGSTOP)
            self.assertEqual(server.stop(), 0)
            self.assertTrue(any("does not end and is killed" in line for line in server.lines), server.lines)

    def test_a_grammar_without_an_end(self):
        """One request alone gets it to hear; whoever waited for the same engine gets an answer of another one."""
        with harness.Server("--threads", "1", "--memory", "1G", "--context", "512", models=[DENSE],
                            env={"HYPURA_TOKEN_SECONDS": "1"}) as server:
            self.assertEqual(server.json("POST", "/api/generate", {"model": DENSE, "stream": False})[0], 200)
            answers = {}

            def request(name, **more):
                answers[name] = server.json("POST", "/v1/chat/completions",
                                            {"model": DENSE, "messages": STORY["messages"], "max_tokens": 8, **more})

            threads = [threading.Thread(target=request, args=("bound",), kwargs={"grammar": 'root ::= ("a"?){400}'}),
                       threading.Thread(target=request, args=("free",))]
            threads[0].start()
            time.sleep(0.5)
            threads[1].start()
            for thread in threads:
                thread.join()
            self.assertEqual(answers["bound"][0], 400, answers)
            self.assertIn("takes more than 1 s", answers["bound"][1]["error"]["message"])
            self.assertEqual((answers["free"][0], answers["free"][1]["usage"]["completion_tokens"]), (200, 8))
            # By a schema, and where the first tokens of the answer were there already.
            status, answer = server.json("POST", "/api/generate", {"model": DENSE, "prompt": "hi", "stream": False,
                                                                   "format": {"type": "string", "pattern": "^(a?){300}$"}})
            self.assertEqual(status, 400, answer)


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Models as they come and go: made anew, named, removed, too many for the memory, and engines that hang."""
import base64
import http.client
import http.server
import json
import os
import shutil
import signal
import struct
import tempfile
import threading
import time
import unittest

import harness
from harness import DENSE, MOE

STORY = [{"role": "user", "content": "Write a long story."}]


def ask(server, method, path, body=None, timeout=300, **headers):
    """One request on a connection of its own: status, and what JSON there is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    connection.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body,
                       {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data) if data.startswith(b"{") else data


def loaded(server):
    return [model["name"] for model in ask(server, "GET", "/api/ps")[1]["models"]]


def link(server, name):
    os.link(harness.model_path(DENSE), os.path.join(server.models, name + ".gguf"))


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--threads", "1", "--memory", "2G", "--context", "512", "--max-body", "16M", models=[DENSE])

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def ask(self, *arguments, **headers):
        return ask(self.server, *arguments, **headers)

    def create(self, name, **more):
        self.assertEqual(self.ask("POST", "/api/create", {"model": name, "from": DENSE, "stream": False, **more}),
                         (200, {"status": "success"}))

    def tokens(self, name):
        status, answer = self.ask("POST", "/v1/chat/completions", {"model": name, "messages": STORY})
        self.assertEqual(status, 200, answer)
        return answer["usage"]["completion_tokens"]

    def contexts(self):
        return [model["context_length"] for model in self.ask("GET", "/api/ps")[1]["models"]]

    def test_a_model_made_anew_while_it_is_loaded(self):
        self.create("again", parameters={"num_predict": 3})
        self.assertEqual(self.tokens("again"), 3)
        self.create("again", parameters={"num_predict": 6})
        self.assertEqual(self.tokens("again"), 6)
        self.create("again", parameters={"num_predict": 6, "num_ctx": 256})
        self.assertEqual(self.tokens("again"), 6)
        self.assertIn(256, self.contexts())
        self.create("again", parameters={"num_predict": 6})
        self.assertEqual(self.tokens("again"), 6)
        self.assertNotIn(256, self.contexts())
        before = self.server.engines()
        self.create("again", parameters={"num_predict": 6}, license="MIT") # nothing that its engine knows of
        self.assertEqual(self.tokens("again"), 6)
        self.assertEqual(self.server.engines(), before)

    def test_a_request_may_have_no_limit(self):
        self.create("short", parameters={"num_predict": 3, "temperature": 0})
        chat = {"model": "short", "messages": STORY, "stream": False}
        self.assertEqual(self.ask("POST", "/api/chat", chat)[1]["eval_count"], 3)
        self.assertGreater(self.ask("POST", "/api/chat", dict(chat, options={"num_predict": -1}))[1]["eval_count"], 3)

    def test_names_of_files_beside_models(self):
        for name in "smollm2-135m.adapter", "a:b.mmproj":
            for path, body in (("/api/copy", {"source": DENSE, "destination": name}),
                               ("/api/create", {"model": name, "from": DENSE}), ("/api/pull", {"model": name})):
                status, answer = self.ask("POST", path, body)
                self.assertEqual(status, 400, (path, answer))
                self.assertIn(".adapter", answer["error"])

    def test_licenses_are_one_text(self):
        self.create("licensed", license=["A", "B"])
        self.assertEqual(self.ask("POST", "/api/show", {"model": "licensed"})[1]["license"], "A\nB")

    def test_what_a_model_is_made_of(self):
        status, answer = self.ask("POST", "/api/create", {"model": "x", "from": DENSE, "files": {"a.gguf": "sha256:" + "0" * 64}})
        self.assertEqual((status, answer["error"]), (400, "a model is made either from another or of files: from and files are both given"))

    def test_the_model_of_a_form(self):
        form = "\r\n".join(("--x", 'Content-Disposition: form-data; name="model"', "", "%s", "--x",
                            'Content-Disposition: form-data; name="file"; filename="a.wav"', "", "RIFF", "--x--", ""))
        self.create("heard")
        for name, wanted in (DENSE, "audio"), ("nobody", "model 'nobody' not found"):
            status, answer = self.ask("POST", "/v1/audio/transcriptions", form % name, Content_Type="multipart/form-data; boundary=x")
            self.assertNotEqual(status, 200)
            self.assertIn(wanted, answer["error"]["message"])

    def test_values_that_would_take_too_much_memory(self):
        few = '{"model":"%s","x":[%s{}]}'
        for n, wanted in (1000, 200), (1 << 20, 413):
            status, answer = self.ask("POST", "/api/show", few % (DENSE, "{}," * n))
            self.assertEqual(status, wanted, answer)
        with open(f"/proc/{self.server.process.pid}/status") as file:
            peak_kib = int(next(line for line in file if line.startswith("VmHWM")).split()[1])
        self.assertLess(peak_kib, 200 << 10)


class Removal(unittest.TestCase):
    def test_what_is_not_removed_stays_loaded(self):
        with harness.Server(harness.model_path(DENSE), "--threads", "1", "--memory", "1G", "--context", "512", models=[]) as server:
            self.assertEqual(ask(server, "POST", "/api/generate", {"model": DENSE, "stream": False})[0], 200)
            before = server.engines()
            self.assertEqual(ask(server, "DELETE", "/api/delete", {"model": DENSE})[0], 400)
            self.assertEqual((loaded(server), server.engines()), ([DENSE + ":latest"], before))
        with harness.Server("--threads", "1", "--memory", "1G", "--context", "512", models=[DENSE]) as server:
            self.assertEqual(ask(server, "POST", "/api/generate", {"model": DENSE, "stream": False})[0], 200)
            self.assertEqual(ask(server, "DELETE", "/api/delete", {"model": DENSE})[0], 200)
            self.assertEqual(loaded(server), [])


class Warm(unittest.TestCase):
    def test_experts_that_were_used_are_there_before_they_are_asked_for(self):
        """As with run: the second server knows what the first one's requests used."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        try:
            shutil.copy(os.path.join(harness.CACHE, "profile.json"), folder)
            read = []
            for n in 16, 1:
                with harness.Server("--threads", "1", "--memory", "2G", "--context", "512", "--weights", "40%", models=[MOE],
                                    env={"HYPURA_CACHE_DIR": folder}) as server:
                    self.assertEqual(ask(server, "POST", "/api/generate", {"model": MOE, "stream": False})[0], 200) # loads it
                    time.sleep(0.5)
                    read.append(ask(server, "GET", "/api/hypura/status")[1]["models"][0]["counters"]["bytes_read"])
                    self.assertEqual(ask(server, "POST", "/api/generate", {
                        "model": MOE, "prompt": "hi", "stream": False, "options": {"num_predict": n}})[0], 200)
                self.assertIn(MOE + ".gguf.experts", os.listdir(folder))
            self.assertGreater(read[1], read[0])
        finally:
            shutil.rmtree(folder)


class Turns(unittest.TestCase):
    def test_what_it_was_told_outlives_a_new_start(self):
        """Loaded in another way while it is in use: what the request does not ask for stays."""
        with harness.Server("--threads", "1", "--memory", "1G", models=[DENSE]) as server:
            def answer(n, **options):
                self.assertEqual(ask(server, "POST", "/api/generate", {
                    "model": DENSE, "prompt": "Tell a story.", "stream": False, "options": dict(options, num_predict=n)})[0], 200)

            for threads in 2, 1, 2, 1:
                answer(1, num_ctx=768)
                busy = threading.Thread(target=answer, args=(60,))
                busy.start()
                time.sleep(0.2)
                answer(1, num_thread=threads)
                busy.join()
                self.assertEqual([model["context_length"] for model in ask(server, "GET", "/api/ps")[1]["models"]], [768])

    def test_a_busy_model_makes_room(self):
        """One is never at rest; another that fits only without it is loaded all the same."""
        with harness.Server("--threads", "1", "--weights", "60M", "--memory", "230M", "--context", "512", "--parallel", "2",
                            models=[DENSE]) as server:
            link(server, "other")
            over = threading.Event()
            failed = []

            def keep_busy():
                while not over.is_set():
                    status, answer = ask(server, "POST", "/api/generate", {"model": DENSE, "prompt": "Tell a story.", "stream": False,
                                                                           "options": {"num_predict": 60}})
                    if status != 200:
                        failed.append(answer)

            threads = [threading.Thread(target=keep_busy) for _ in range(2)]
            threads[0].start()
            harness.wait_until(lambda: loaded(server) == [DENSE + ":latest"])
            time.sleep(0.5) # so that one is in the middle of its answer when the other's ends
            threads[1].start()
            try:
                status, answer = ask(server, "POST", "/api/generate", {"model": "other", "prompt": "hi", "stream": False,
                                                                       "options": {"num_predict": 2}}, timeout=60)
                self.assertEqual(status, 200, answer)
            finally:
                over.set()
                for thread in threads:
                    thread.join()
            self.assertEqual(failed, [])
            self.assertEqual(sum("loaded in" in line for line in server.lines) >= 2, True, server.lines)


class Hanging(unittest.TestCase):
    def test_an_engine_that_hangs_is_ended(self):
        """Its conversation is not saved, and nobody waits for that."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        with harness.Server("--threads", "1", "--memory", "1G", "--drain", "1", models=[DENSE],
                            env={"HYPURA_CACHE_DIR": harness.make_cache(folder)}) as server:
            words = " ".join(f"word{i}" for i in range(100))
            status, answer = ask(server, "POST", "/api/generate", {"model": DENSE, "prompt": words, "stream": False,
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
            self.assertEqual(ask(server, "POST", "/api/generate", {"model": DENSE, "stream": False})[0], 200)
            answers = {}

            def request(name, **more):
                answers[name] = ask(server, "POST", "/v1/chat/completions", {"model": DENSE, "messages": STORY, "max_tokens": 8, **more})

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
            status, answer = ask(server, "POST", "/api/generate", {"model": DENSE, "prompt": "hi", "stream": False,
                                                                   "format": {"type": "string", "pattern": "^(a?){300}$"}})
            self.assertEqual(status, 400, answer)


class Elsewhere(unittest.TestCase):
    def test_the_servers_own_page(self):
        """As a browser of another machine sees it; and what that machine is not to reach with us."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        os.mkdir(os.path.join(folder, "models"))
        harness.write_projector(os.path.join(folder, "models", DENSE + ".mmproj.gguf"), 576)
        with harness.Server("--host", "0.0.0.0", "--api-key", "k", "--threads", "1", "--memory", "1G", "--context", "512",
                            models=[DENSE], folder=folder) as server:
            for origin, host, wanted in (("http://192.168.1.5:80", "192.168.1.5:80", 200), ("https://box.lan", "box.lan", 200),
                                         ("http://192.168.1.5:80", "192.168.1.6:80", 403), ("http://evil.example", "box.lan", 403)):
                status, _ = ask(server, "GET", "/api/version", Origin=origin, Host=host, Authorization="Bearer k")
                self.assertEqual(status, wanted, origin)
            asked = []

            class Inside(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    asked.append(self.path)
                    self.send_response(200)
                    self.end_headers()

                def log_message(self, *_):
                    pass

            web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inside)
            threading.Thread(target=web.serve_forever, daemon=True).start()
            self.addCleanup(web.server_close)
            self.addCleanup(web.shutdown)
            for host in "127.0.0.1", "localhost":
                part = {"type": "image_url", "image_url": {"url": f"http://{host}:{web.server_port}/0.png"}}
                status, answer = ask(server, "POST", "/v1/chat/completions",
                                     {"model": DENSE, "messages": [{"role": "user", "content": [part]}]}, Authorization="Bearer k")
                self.assertEqual(status, 400, answer)
                self.assertIn("no address of the open network", answer["error"]["message"])
            self.assertEqual(asked, [])
            # Some bytes that would become gigabytes in the engine: told before the model is loaded.
            head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIB", 13, b"IHDR", 20000, 20000, 1)
            picture = base64.b64encode(head + b"\0" * 40).decode()
            data = "data:image/png;base64," + picture
            for path, message in (("/api/chat", {"role": "user", "content": "hi", "images": [picture]}),
                                  ("/v1/chat/completions", {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}),
                                  ("/v1/messages", {"role": "user", "content": [{"type": "image", "source": {
                                      "type": "base64", "media_type": "image/png", "data": picture}}]})):
                status, answer = ask(server, "POST", path, {"model": DENSE, "max_tokens": 1, "messages": [message]}, Authorization="Bearer k")
                self.assertEqual(status, 400, answer)
                self.assertIn("million pixels", json.dumps(answer))
            self.assertEqual(server.engines(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)

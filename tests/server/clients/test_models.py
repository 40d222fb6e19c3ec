"""Models as they come and go: made anew, named, removed, used before, too many for the memory."""
import json
import os
import shutil
import tempfile
import threading
import time
import unittest

import harness
from harness import DENSE, MOE, SHORT, WORDS, WORDS_MOE, user

STORY = user("Write a long story.")


def link(server, name):
    os.link(harness.model_path(WORDS), os.path.join(server.models, name + ".gguf"))


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--threads", "1", "--memory", "2G", "--context", "512", "--max-body", "16M", models=[WORDS])

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def ask(self, *arguments, **headers):
        return self.server.json(*arguments, **headers)

    def create(self, name, **more):
        self.assertEqual(self.ask("POST", "/api/create", {"model": name, "from": WORDS, "stream": False, **more}),
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
            for path, body in (("/api/copy", {"source": WORDS, "destination": name}),
                               ("/api/create", {"model": name, "from": WORDS}), ("/api/pull", {"model": name})):
                status, answer = self.ask("POST", path, body)
                self.assertEqual(status, 400, (path, answer))
                self.assertIn(".adapter", answer["error"])

    def test_licenses_are_one_text(self):
        self.create("licensed", license=["A", "B"])
        self.assertEqual(self.ask("POST", "/api/show", {"model": "licensed"})[1]["license"], "A\nB")

    def test_what_a_model_is_made_of(self):
        status, answer = self.ask("POST", "/api/create", {"model": "x", "from": WORDS, "files": {"a.gguf": "sha256:" + "0" * 64}})
        self.assertEqual((status, answer["error"]), (400, "a model is made either from another or of files: from and files are both given"))
        for key, value, wanted in (("messages", [None], "a role and a content"), ("messages", "Hello.", "messages is no array"),
                                   ("messages", [{"role": "user", "content": 5}], "a role and a content"),
                                   ("parameters", [], "parameters is no object"), ("system", 5, "system is no text"),
                                   ("parameters", {"temperature": 1e300}, "out of range"),
                                   ("template", "{{ xy" + "\u00e9" * 40 + " }}", "is not understood at")):
            status, answer = self.ask("POST", "/api/create", {"model": "x", "from": WORDS, key: value, "stream": False})
            self.assertEqual(status, 400, (key, value, answer))
            self.assertIn(wanted, answer["error"])

    def test_the_model_of_a_form(self):
        form = "\r\n".join(("--x", 'Content-Disposition: form-data; name="model"', "", "%s", "--x",
                            'Content-Disposition: form-data; name="file"; filename="a.wav"', "", "RIFF", "--x--", ""))
        self.create("heard")
        for name, wanted in (WORDS, "audio"), ("nobody", "model 'nobody' not found"):
            status, answer = self.ask("POST", "/v1/audio/transcriptions", form % name, Content_Type="multipart/form-data; boundary=x")
            self.assertNotEqual(status, 200)
            self.assertIn(wanted, answer["error"]["message"])

    def test_values_that_would_take_too_much_memory(self):
        few = '{"model":"%s","x":[%s{}]}'
        for n, wanted in (1000, 200), (1 << 20, 413):
            status, answer = self.ask("POST", "/api/show", few % (WORDS, "{}," * n))
            self.assertEqual(status, wanted, answer)
        with open(f"/proc/{self.server.process.pid}/status") as file:
            peak_kib = int(next(line for line in file if line.startswith("VmHWM")).split()[1])
        self.assertLess(peak_kib, 200 << 10)


class Removal(unittest.TestCase):
    def test_what_is_not_removed_stays_loaded(self):
        with harness.Server(harness.model_path(WORDS), "--threads", "1", "--memory", "1G", "--context", "512", models=[]) as server:
            self.assertEqual(server.json("POST", "/api/generate", {"model": WORDS, "stream": False})[0], 200)
            before = server.engines()
            self.assertEqual(server.json("DELETE", "/api/delete", {"model": WORDS})[0], 400)
            self.assertEqual((server.loaded(), server.engines()), ([WORDS + ":latest"], before))
        with harness.Server("--threads", "1", "--memory", "1G", "--context", "512", models=[WORDS]) as server:
            self.assertEqual(server.json("POST", "/api/generate", {"model": WORDS, "stream": False})[0], 200)
            self.assertEqual(server.json("DELETE", "/api/delete", {"model": WORDS})[0], 200)
            self.assertEqual(server.loaded(), [])


class Warm(unittest.TestCase):
    def test_experts_that_were_used_are_there_before_they_are_asked_for(self):
        """As with run: the second server knows what the first one's requests used."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        try:
            harness.make_cache(folder)
            read = []
            for n in 16, 1:
                with harness.Server("--threads", "1", "--memory", "2G", "--context", "512", "--weights", "40%", models=[WORDS_MOE],
                                    env={"HYPURA_CACHE_DIR": folder}) as server:
                    self.assertEqual(server.json("POST", "/api/generate", {"model": WORDS_MOE, "stream": False})[0], 200) # loads it
                    time.sleep(0.5)
                    read.append(server.json("GET", "/api/hypura/status")[1]["models"][0]["counters"]["bytes_read"])
                    self.assertEqual(server.json("POST", "/api/generate", {
                        "model": WORDS_MOE, "prompt": "hi", "stream": False, "options": {"num_predict": n}})[0], 200)
                self.assertIn(WORDS_MOE + ".gguf.experts", os.listdir(folder))
            self.assertGreater(read[1], read[0])
        finally:
            shutil.rmtree(folder)


class Turns(unittest.TestCase):
    def test_what_it_was_told_outlives_a_new_start(self):
        """Loaded in another way while it is in use: what the request does not ask for stays."""
        with harness.Server("--threads", "1", "--memory", "1G", models=[WORDS]) as server:
            def answer(n, **options):
                self.assertEqual(server.json("POST", "/api/generate", {
                    "model": WORDS, "prompt": "Tell a story.", "stream": False, "options": dict(options, num_predict=n)})[0], 200)

            for threads in 2, 1, 2, 1:
                answer(1, num_ctx=768)
                busy = threading.Thread(target=answer, args=(200,))
                busy.start()
                harness.wait_until(lambda: server.active() == 1)
                answer(1, num_thread=threads)
                busy.join()
                self.assertEqual([model["context_length"] for model in server.json("GET", "/api/ps")[1]["models"]], [768])
            answer(1, num_ctx=512)
            self.assertEqual([model["context_length"] for model in server.json("GET", "/api/ps")[1]["models"]], [512])

    def test_a_busy_model_makes_room(self):
        """One is never at rest; another that fits only without it is loaded all the same."""
        with harness.Server("--threads", "1", "--memory", "130M", "--context", "512", "--parallel", "2",
                            models=[WORDS]) as server:
            link(server, "other")
            over = threading.Event()
            failed = []

            def keep_busy():
                while not over.is_set():
                    status, answer = server.json("POST", "/api/generate", {"model": WORDS, "prompt": "Tell a story.", "stream": False,
                                                                           "options": {"num_predict": 400}})
                    if status != 200:
                        failed.append(answer)

            threads = [threading.Thread(target=keep_busy) for _ in range(2)]
            threads[0].start()
            harness.wait_until(lambda: server.loaded() == [WORDS + ":latest"])
            time.sleep(0.1) # so that one is in the middle of its answer when the other's ends
            threads[1].start()
            try:
                status, answer = server.json("POST", "/api/generate", {"model": "other", "prompt": "hi", "stream": False,
                                                                       "options": {"num_predict": 2}}, timeout=60)
                self.assertEqual(status, 200, answer)
            finally:
                over.set()
                for thread in threads:
                    thread.join()
            self.assertEqual(failed, [])
            self.assertEqual(sum("loaded in" in line for line in server.lines) >= 2, True, server.lines)


class Memory(unittest.TestCase):
    def test_an_idle_model_makes_room(self):
        with harness.Server("--memory", "120M", "--threads", "1", "--parallel", "1", "--context", "512") as server:
            for name in WORDS, WORDS_MOE:
                self.assertEqual(server.ask("POST", "/api/chat", dict(SHORT, model=name))[0], 200)
                self.assertEqual(server.loaded(), [name + ":latest"])
            used = sum(m["size"] for m in server.json("GET", "/api/ps")[1]["models"])
            self.assertLessEqual(used, 120 << 20)

    def test_an_idle_model_gives_up_its_pool(self):
        with harness.Server("--memory", "560M", "--threads", "1", "--parallel", "1", models=[DENSE, MOE]) as server:
            def sizes():
                return {m["name"]: m["size"] for m in server.json("GET", "/api/ps")[1]["models"]}
            moe, dense = MOE + ":latest", DENSE + ":latest"
            options = dict(SHORT["options"], num_ctx=2048)
            question = lambda name: server.ask("POST", "/api/chat", dict(SHORT, model=name, options=options))
            self.assertEqual(question(MOE)[0], 200)
            alone = sizes()[moe]
            self.assertEqual(question(DENSE)[0], 200)
            self.assertEqual(set(sizes()), {moe, dense})
            self.assertLess(sizes()[moe], alone)
            self.assertLessEqual(sum(sizes().values()), 560 << 20)
            self.assertEqual(question(MOE)[0], 200)
            server.ask("POST", "/api/generate", json.dumps({"model": DENSE, "keep_alive": 0}))
            harness.wait_until(lambda: sizes().get(moe, 0) > alone * 0.9)
            self.assertEqual(question(MOE)[0], 200)

    def test_a_model_that_can_never_fit_is_refused(self):
        with harness.Server("--memory", "33M", "--threads", "1", models=[WORDS]) as server:
            status, headers, data = server.ask("POST", "/api/chat", SHORT)
            self.assertEqual(status, 500)
            self.assertNotIn("Retry-After", headers)
            self.assertRegex(json.loads(data)["error"], r"requires more system memory than is available \(33.*bytes\): .*bytes")

    def test_a_named_model_that_can_never_fit_is_told_at_start(self):
        with harness.Server("--memory", "33M", "--threads", "1", harness.model_path(WORDS), models=[]) as server:
            harness.wait_until(lambda: any(
                "words:latest: model requires more system memory than is available" in line for line in server.lines))


if __name__ == "__main__":
    unittest.main(verbosity=2)

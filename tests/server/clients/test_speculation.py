"""Speculation in the server: with a draft model and without, what it takes, what it says, and that answers stay."""
import json
import os
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

import harness
from harness import DENSE, MOE

REPEAT = "Say three times: the quick brown fox jumps over the lazy dog and runs away to the green hills."
POEM = "Write a short poem about rivers."


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def chat(server, model, prompt, tokens=32):
    status, answer = post(server, "/v1/chat/completions", {
        "model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": tokens})
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"], answer["timings"]


def told(server, name):
    """What the server says of a model that is loaded."""
    with urllib.request.urlopen(server.url + "/api/hypura/status") as answer:
        return next(model for model in json.load(answer)["models"] if model["name"].startswith(name))


class Speculation(unittest.TestCase):
    def test_draft(self):
        """The server's draft is of the models that it fits, not of itself, and says what came of it; the memory holds both."""
        with harness.Server("--draft", harness.model_path(DENSE), "--draft-max", "6", "--memory", "2G", "--weights", "60%",
                            "--parallel", "1", "--threads", "1") as server:
            paged, timings = chat(server, MOE, POEM)
            self.assertGreater(timings["draft_n_accepted"], timings["predicted_n"] // 2)
            model = told(server, MOE)
            self.assertEqual((model["speculation"], model["mode"]), ("draft-simple", "experts"))
            self.assertEqual(model["counters"]["drafted_tokens"], timings["draft_n"])
            self.assertEqual(model["counters"]["accepted_tokens"], timings["draft_n_accepted"])
            self.assertGreater(model["tiers"]["draft_bytes"], os.path.getsize(harness.model_path(DENSE)))
            _, timings = chat(server, DENSE, POEM, 8)
            self.assertNotIn("draft_n", timings)
            self.assertIsNone(told(server, DENSE)["speculation"])
        with harness.Server("--draft", DENSE, "--draft-max", "6", "--memory", "2G", "--parallel", "1", "--threads", "1",
                            models=[DENSE, MOE]) as server:
            held, timings = chat(server, MOE, POEM)
            self.assertEqual(told(server, MOE)["mode"], "resident")
            self.assertEqual(held, paged)

    def test_draft_and_memory(self):
        """What the draft takes the pager does not get."""
        pools = []
        for options in (), ("--draft", harness.model_path(DENSE)):
            with harness.Server("--memory", "640M", "--parallel", "1", "--context", "1024", "--threads", "1", *options) as server:
                chat(server, MOE, POEM, 4)
                model = told(server, MOE)
                taken = sum(model["tiers"][tier + "_bytes"] for tier in
                            ("resident", "pinned", "pool", "ring", "kv", "compute", "overhead", "draft"))
                self.assertLessEqual(taken, 640 << 20)
                pools.append(model["tiers"]["pool_bytes"] + model["tiers"]["draft_bytes"] + model["tiers"]["resident_bytes"])
        self.assertLess(pools[0], 450 << 20)
        with harness.Server("--memory", "200M", "--parallel", "1", "--context", "1024", "--threads", "1",
                            "--draft", harness.model_path(DENSE)) as server:
            status, answer = post(server, "/api/generate", {"model": MOE, "prompt": "Hi", "stream": False})
            self.assertEqual(status, 500, answer)
            self.assertIn("as draft, which takes", answer["error"])

    def test_text(self):
        """What was said before is guessed again; paged and held answers are the same."""
        answers = []
        for options in (), ("--weights", "60%"):
            with harness.Server("--spec-type", "ngram-map-k", "--draft-max", "8", "--memory", "2G", "--parallel", "1",
                                "--threads", "1", *options) as server:
                text, timings = chat(server, MOE, REPEAT)
                self.assertGreater(timings["draft_n"], 0)
                self.assertEqual(told(server, MOE)["speculation"], "ngram-map-k")
                answers.append(text)
        self.assertEqual(*answers)

    def test_unfit(self):
        """A draft of another vocabulary: the server's is left out and the log says so, a model's own is an error."""
        with tempfile.TemporaryDirectory() as folder:
            tiny = os.path.join(folder, "tiny")
            subprocess.run([os.path.join(harness.BUILD, "mkmodel"), "tiny", tiny], check=True, stdout=subprocess.DEVNULL)
            other = os.path.join(tiny, "dense-tied-q8_0.gguf")
            with harness.Server("--draft", other, "--memory", "2G", "--parallel", "1", "--context", "128",
                                models=[DENSE]) as server:
                _, timings = chat(server, DENSE, "Hi", 4)
                self.assertNotIn("draft_n", timings)
                self.assertTrue(any("runs without a draft" in line and other in line for line in server.lines), server.lines)
            with harness.Server("--memory", "2G", "--parallel", "1", "--context", "128") as server:
                os.link(other, os.path.join(server.models, "other.gguf"))
                for draft, told_why in ("other", "vocabulary"), ("nobody", "is not there"):
                    status, answer = post(server, "/api/create", {"model": "mine", "from": DENSE, "draft": draft, "stream": False})
                    self.assertEqual(status, 200, answer)
                    status, answer = post(server, "/api/generate", {"model": "mine", "prompt": "Hi"})
                    self.assertEqual(status, 400, answer)
                    self.assertIn(told_why, answer["error"])

    def test_own(self):
        """A model is made with a draft of its own, or with none where the server has one."""
        with harness.Server("--memory", "2G", "--weights", "60%", "--parallel", "1", "--context", "1024", "--threads", "1",
                            "--draft", harness.model_path(DENSE)) as server:
            for name, draft in ("with", DENSE), ("without", ""):
                status, answer = post(server, "/api/create", {"model": name, "from": MOE, "draft": draft, "stream": False})
                self.assertEqual(status, 200, answer)
            self.assertIn("draft_n", chat(server, "with", POEM, 12)[1])
            self.assertNotIn("draft_n", chat(server, "without", POEM, 12)[1])
            status, answer = post(server, "/api/embed", {"model": "with", "input": "Hi"})
            self.assertEqual(status, 200, answer)
            self.assertIsNone(told(server, "with")["speculation"])


if __name__ == "__main__":
    unittest.main()

"""Speculation in the server: with a draft model and without, what it takes, what it says, and that answers stay."""
import os
import unittest

import harness
from harness import WORDS, WORDS_MOE

REPEAT = "Say three times: the quick brown fox jumps over the lazy dog and runs away to the green hills."
POEM = "Write a short poem about rivers."


class Speculation(unittest.TestCase):
    def test_draft(self):
        """The server's draft is of the models that it fits, not of itself, and says what came of it; the memory holds both."""
        with harness.Server("--draft", harness.model_path(WORDS), "--draft-max", "6", "--memory", "2G", "--weights", "60%",
                            "--parallel", "1", "--threads", "1") as server:
            paged, timings = server.chat(WORDS_MOE, POEM)
            self.assertGreater(timings["draft_n_accepted"], timings["predicted_n"] // 2)
            model = server.told(WORDS_MOE)
            self.assertEqual((model["speculation"], model["mode"]), ("draft-simple", "experts"))
            self.assertEqual(model["counters"]["drafted_tokens"], timings["draft_n"])
            self.assertEqual(model["counters"]["accepted_tokens"], timings["draft_n_accepted"])
            self.assertGreater(model["tiers"]["draft_bytes"], os.path.getsize(harness.model_path(WORDS)))
            _, timings = server.chat(WORDS, POEM, 8)
            self.assertNotIn("draft_n", timings)
            self.assertIsNone(server.told(WORDS)["speculation"])
        with harness.Server("--draft", WORDS, "--draft-max", "6", "--memory", "2G", "--parallel", "1", "--threads", "1") as server:
            held, timings = server.chat(WORDS_MOE, POEM)
            self.assertEqual(server.told(WORDS_MOE)["mode"], "resident")
            self.assertEqual(held, paged)

    def test_draft_and_memory(self):
        """What the draft takes the pager does not get."""
        pools = []
        for options in (), ("--draft", harness.model_path(WORDS)):
            with harness.Server("--memory", "78M", "--parallel", "1", "--context", "1024", "--threads", "1", *options) as server:
                server.chat(WORDS_MOE, POEM, 4)
                model = server.told(WORDS_MOE)
                taken = sum(model["tiers"][tier + "_bytes"] for tier in
                            ("resident", "pinned", "pool", "ring", "kv", "compute", "overhead", "draft"))
                self.assertLessEqual(taken, 78 << 20)
                pools.append(model["tiers"]["pool_bytes"] + model["tiers"]["draft_bytes"] + model["tiers"]["resident_bytes"])
        self.assertLess(pools[0], 28 << 20)
        with harness.Server("--memory", "64M", "--parallel", "1", "--context", "1024", "--threads", "1",
                            "--draft", harness.model_path(WORDS)) as server:
            status, answer = server.json("POST", "/api/generate", {"model": WORDS_MOE, "prompt": "Hi", "stream": False})
            self.assertEqual(status, 500, answer)
            self.assertIn("as draft, which takes", answer["error"])

    def test_text(self):
        """What was said before is guessed again; paged and held answers are the same."""
        answers = []
        for options in (), ("--weights", "60%"):
            with harness.Server("--spec-type", "ngram-map-k", "--draft-max", "8", "--memory", "2G", "--parallel", "1",
                                "--threads", "1", *options) as server:
                text, timings = server.chat(WORDS_MOE, REPEAT, 160)
                self.assertGreater(timings["draft_n"], 0)
                self.assertEqual(server.told(WORDS_MOE)["speculation"], "ngram-map-k")
                answers.append(text)
        self.assertEqual(*answers)

    def test_unfit(self):
        """A draft of another vocabulary: the server's is left out and the log says so, a model's own is an error."""
        other = os.path.join(harness.BUILD, "tests", "tiny", "dense-tied-q8_0.gguf")
        with harness.Server("--draft", other, "--memory", "2G", "--parallel", "1", "--context", "128",
                            models=[WORDS]) as server:
            _, timings = server.chat(WORDS, "Hi", 4)
            self.assertNotIn("draft_n", timings)
            self.assertTrue(any("runs without a draft" in line and other in line for line in server.lines), server.lines)
        with harness.Server("--memory", "2G", "--parallel", "1", "--context", "128") as server:
            os.link(other, os.path.join(server.models, "other.gguf"))
            for draft, told_why in ("other", "vocabulary"), ("nobody", "is not there"):
                status, answer = server.json("POST", "/api/create", {"model": "mine", "from": WORDS, "draft": draft, "stream": False})
                self.assertEqual(status, 200, answer)
                status, answer = server.json("POST", "/api/generate", {"model": "mine", "prompt": "Hi"})
                self.assertEqual(status, 400, answer)
                self.assertIn(told_why, answer["error"])

    def test_own(self):
        """A model is made with a draft of its own, or with none where the server has one."""
        with harness.Server("--memory", "2G", "--weights", "60%", "--parallel", "1", "--context", "1024", "--threads", "1",
                            "--draft", harness.model_path(WORDS)) as server:
            for name, draft in ("with", WORDS), ("without", ""):
                status, answer = server.json("POST", "/api/create", {"model": name, "from": WORDS_MOE, "draft": draft, "stream": False})
                self.assertEqual(status, 200, answer)
            self.assertIn("draft_n", server.chat("with", POEM, 12)[1])
            self.assertNotIn("draft_n", server.chat("without", POEM, 12)[1])
            status, answer = server.json("POST", "/api/embed", {"model": "with", "input": "Hi"})
            self.assertEqual(status, 200, answer)
            self.assertIsNone(server.told("with")["speculation"])


if __name__ == "__main__":
    unittest.main()

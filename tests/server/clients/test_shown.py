#!/usr/bin/env python3
"""Pictures of `hypura run`, on models that were made to see by projectors with random weights: what they answer says nothing of
the picture, but the same at every budget, and what the server answers."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import unittest
import urllib.request

import harness
import made

TOKENS = 16


class Shown(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="hypura-test-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for name, red in ("one.png", 200), ("two.png", 20):
            with open(cls.path(name), "wb") as file:
                file.write(base64.b64decode(made.picture(red)))
        with open(cls.path("words.png"), "w") as file:
            file.write("These are words.")
        os.link(harness.model_path(harness.WORDS), cls.path("dense.gguf"))
        os.link(harness.model_path(harness.WORDS_MOE), cls.path("moe.gguf"))
        made.as_qwen2vl(harness.model_path(harness.WORDS), cls.path("places.gguf"))
        for name in "dense", "moe", "places":
            made.write_projector(cls.path(f"{name}.mmproj.gguf"), made.WORDS_WIDTH)
        made.write_projector(cls.path("other.gguf"), 512)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def run_program(self, *words, text=None):
        threads = () if "--server" in words else ("--threads", "1")
        return subprocess.run(
            [harness.HYPURA, "run", *words, *threads, "--temp", "0", "--max-tokens", str(TOKENS)], input=text, text=True,
            capture_output=True, cwd=self.folder, env=dict(os.environ, OMP_WAIT_POLICY="passive"))

    def answer(self, *words, text=None):
        done = self.run_program(*words, text=text)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout[:-1]

    def test_a_thought_may_say_what_marks_a_picture(self):
        """It is text then, as where a message says it, and the picture stands where it was shown."""
        with open(self.path("thinks.jinja"), "w") as file:
            file.write("{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}{{ m.reasoning_content }} {% endif %}"
                       "{{ m.content }}\n{% endfor %}assistant:")
        answers = []
        for name, said in (("thought", {"content": "Hello.", "reasoning_content": "<__media_0__>"}),
                           ("message", {"content": "<__media_0__> Hello."})):
            history = self.path(name + ".json")
            with open(history, "w") as file:
                json.dump([{"role": "user", "content": "Hello."}, {"role": "assistant", **said}], file)
            answers.append(self.answer("dense.gguf", "--template", "thinks.jinja", "--history", history, "--image", "one.png",
                                       "--prompt", "What is this?"))
        self.assertEqual(*answers)

    def test_answers_are_the_same_at_every_budget(self):
        for model in "dense.gguf", "moe.gguf", "places.gguf":
            shown = "--image", "one.png", "--image", "two.png"
            asked = "--prompt", "What is this?"
            wanted = self.answer(model, "--plain", *shown, *asked)
            self.assertNotEqual(wanted, self.answer(model, "--plain", *asked))
            for budget in ("--weights", "40%"), ("--weights", "40%", "--no-repack", "--io-engine", "pool"), ("--ubatch", "3"):
                if budget[0] == "--ubatch" and model == "moe.gguf":
                    continue # sums of a prompt are rounded in other places where its parts are others
                self.assertEqual(self.answer(model, *budget, *shown, *asked), wanted, (model, budget))

    def test_the_server_answers_the_same(self):
        with harness.Server("--memory", "1G", "--parallel", "1", "--threads", "1", "--context", "1024",
                            folder=self.folder, models=()) as server:
            for name in "dense", "moe", "places":
                for n in "", ".mmproj":
                    os.link(self.path(f"{name}{n}.gguf"), os.path.join(server.models, f"{name}{n}.gguf"))
            for name in "dense", "moe", "places":
                turns = ["./one.png What is this?", "And './two.png'?", "What were they?"]
                here = self.answer(name + ".gguf", "-i", "--context", "1024", text="\n".join(turns))
                there = self.answer(name, "--server", server.url, "-i", text="\n".join(turns))
                self.assertEqual(here, there, name)
                self.assertEqual(self.answer(name, "--server", server.url, "--image", "one.png", "--prompt", "What is this?"),
                                 self.answer(name + ".gguf", "--context", "1024", "--image", "one.png", "--prompt", "What is this?"))
        # A file that is named is served with the projector beside it.
        with harness.Server("--memory", "1G", "--context", "512", self.path("dense.gguf"), models=()) as server:
            with urllib.request.urlopen(f"{server.url}/api/show", data=b'{"model":"dense"}') as shown:
                self.assertIn("vision", json.load(shown)["capabilities"])

    def test_a_conversation_goes_on_with_its_pictures(self):
        turns = ["./one.png What is this?", "And ./two.png?", "What were they?"]
        whole = self.run_program("places.gguf", "-i", text="\n".join(turns))
        kept = self.path("kept.json")
        parts = [self.answer("places.gguf", "--history", kept, "--prompt", turn) for turn in turns]
        self.assertEqual(whole.stdout, "\n".join(parts) + "\n")
        # What the context holds of a picture is not computed again: 4 tokens each, of 3 turns.
        tokens = int(whole.stderr.split("\nprompt ")[1].split()[0])
        alone = 0
        for n in range(3):
            with open(kept) as file:
                messages = json.load(file)[: 2 * n]
            with open(self.path("part.json"), "w") as file:
                json.dump(messages, file)
            done = self.run_program("places.gguf", "--history", self.path("part.json"), "--prompt", turns[n])
            alone += int(done.stderr.split("\nprompt ")[1].split()[0])
        self.assertLess(tokens, alone * 0.8)

    def test_what_is_wrong_is_told_before_weights_are_read(self):
        cases = (
            (2, "words.png is no picture and no sound that can be read", "dense.gguf", "What?", "--image", "words.png"),
            (1, "mismatch between text model (n_embd = 256) and mmproj (n_embd = 512)", "dense.gguf", "--mmproj", "other.gguf", "What?",
             "--image", "one.png"),
            (1, "dense.gguf: it is no projector: its architecture is 'llama'", "dense.gguf", "--mmproj", "dense.gguf", "What?"),
            (2, "the grammar cannot be used", "dense.gguf", "What?", "--grammar", "nothing"),
            (2, "the JSON schema cannot be used", "dense.gguf", "What?", "--json-schema", "{"),
            (1, "the given chat template cannot be used", "dense.gguf", "What?", "--template", "bad.jinja"),
            (1, "the given chat template cannot be used", "dense.gguf", "-i", "--template", "bad.jinja"),
            (1, "Jinja Exception: no, never", "dense.gguf", "What?", "--template", "never.jinja"),
            (2, "the prompt takes", "dense.gguf", "word " * 300, "--context", "256"),
        )
        with open(self.path("bad.jinja"), "w") as file:
            file.write("{% for m in messages %}")
        with open(self.path("never.jinja"), "w") as file:
            file.write("{{ raise_exception('no, never') }}")
        trace = self.path("opened")
        for code, message, *words in cases:
            done = self.run_program(*words)
            self.assertEqual(done.returncode, code, (words, done.stderr))
            self.assertIn(message, done.stderr)
            self.assertNotIn("mode  ", done.stderr)
        # Nothing is written before, either.
        done = self.run_program("moe.gguf", "What?", "--grammar", "nothing", "--trace", trace)
        self.assertEqual(done.returncode, 2)
        self.assertFalse(os.path.exists(trace))


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""What an answer is made of besides its prompt: conversations that were kept, contexts that end, what a model was made with, grammars."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

import harness
from harness import DENSE, SHORT, WORDS, user


class Conversations(unittest.TestCase):
    """What a conversation's first turn computed is there for the next one, also after a restart."""

    def turn(self, server, messages):
        status, _, data = server.ask("POST", "/v1/chat/completions", {
            "model": WORDS, "messages": messages, "max_tokens": 8, "temperature": 0})
        self.assertEqual(status, 200, data)
        answer = json.loads(data)
        messages += [answer["choices"][0]["message"]] + user("And what else?")
        return answer["usage"]["prompt_tokens"], answer["timings"]["cache_n"]

    def test_over_a_restart(self):
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        cache = harness.make_cache(os.path.join(folder, "cache"))
        states = os.path.join(cache, "conversations")
        options = dict(models=[WORDS], folder=folder, env={"HYPURA_CACHE_DIR": cache})
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


    def test_one_of_many_takes_the_place_of_its_beginning(self):
        """Also where there are more than a session looks at."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        cache = harness.make_cache(os.path.join(folder, "cache"))
        options = dict(models=[WORDS], folder=folder, env={"HYPURA_CACHE_DIR": cache})
        kept = lambda: [os.path.join(path, name) for path, _, names in os.walk(os.path.join(cache, "conversations"))
                        for name in names if name.endswith(".state")]
        with harness.Server("--memory", "1G", "--threads", "1", **options) as server:
            self.turn(server, user("Forget it. " * 50))
        with open(kept()[0], "rb") as file:
            head = file.read(6 * 4)
            tokens = file.read(4 * int.from_bytes(head[20:24], "little"))
        for i in range(300):
            path = os.path.join(os.path.dirname(kept()[0]), f"{i:016x}.state")
            with open(path, "wb") as file:
                file.write(head + i.to_bytes(4, "little") + tokens[4:])
            os.utime(path, (i, i))
        with harness.Server("--memory", "1G", "--threads", "1", **options) as server:
            for n_tokens in 200, 300:
                prompt = [100 + i * 7 % 61 for i in range(n_tokens)]
                self.assertEqual(server.ask("POST", "/completion", {"model": WORDS, "prompt": prompt, "n_predict": 1})[0], 200)
                harness.wait_until(lambda: len(kept()) == 302)
        self.assertEqual(len(kept()), 302)


class Contexts(unittest.TestCase):
    def test_answers_longer_than_the_context(self):
        """They go on without what is oldest, unless a request wants their end."""
        with harness.Server("--context-shift", "--context", "256", "--memory", "1G", "--threads", "1", models=[WORDS]) as server:
            def ask(path, **body):
                status, _, data = server.ask("POST", path, {"model": WORDS, **body})
                self.assertEqual(status, 200, data)
                return data
            text = " ".join(f"{i}," for i in range(1, 39)) # most of the context
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
            self.assertEqual(server.ask("POST", "/api/generate", {"model": WORDS, "prompt": "a", "shift": "no"})[0], 400)


class Made(unittest.TestCase):
    def test_the_program_answers_as_the_server_does(self):
        """What a model was made with is the same for both."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        made = {"model": "mario", "from": WORDS, "system": "You are Mario.", "stream": False,
                "parameters": {"temperature": 0, "num_predict": 24, "num_ctx": 512, "repeat_penalty": 1.3},
                "messages": [{"role": "user", "content": "Where are you?"}, {"role": "assistant", "content": "In a castle."}]}
        with harness.Server("--memory", "1G", "--threads", "1", "--parallel", "1", folder=folder, models=[WORDS]) as server:
            self.assertEqual(server.ask("POST", "/api/create", made)[0], 200)
            body = {"model": "mario", "stream": False, "messages": user("Who are you?")}
            there = json.loads(server.ask("POST", "/api/chat", body)[2])["message"]["content"]
        words = [harness.HYPURA, "run", "mario", "Who are you?", "--threads", "1"]
        env = dict(os.environ, OMP_WAIT_POLICY="passive", HYPURA_MODELS=os.path.join(folder, "models"))
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
               ("/v1/responses", {"model": DENSE, "input": "Hello.",
                                  "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}},
                "nonsense"),
               ("/completion", {"model": DENSE, "prompt": "Hello.", "json_schema": schema}, "nonsense"),
               ("/api/chat", dict(SHORT, model=DENSE, format=schema), "nonsense"),
               ("/api/generate", dict(SHORT, model=DENSE, prompt="Hello.", format=schema), "nonsense"))
        with harness.Server("--memory", "1G", "--threads", "1", "--context", "512", models=[DENSE]) as server:
            loaded = lambda: json.loads(server.ask("GET", "/api/ps")[2])["models"]
            for path, body, why in bad:
                status, _, data = server.ask("POST", path, body)
                self.assertEqual(status, 400, (path, data))
                self.assertIn(why, data.decode())
            self.assertEqual(loaded(), [])
            # One that names a token is the model's to understand; a good one is taken, and then the engine tells by itself.
            for grammar in 'root ::= "a"+ <|im_end|>', 'root ::= "abc"':
                status, _, data = server.ask("POST", "/v1/chat/completions", dict(chat, grammar=grammar))
                self.assertEqual(status, 200, data)
            self.assertEqual(json.loads(data)["choices"][0]["message"]["content"], "abc")
            self.assertEqual(len(loaded()), 1)
            for path, body, _ in bad:
                self.assertEqual(server.ask("POST", path, body)[0], 400, path)


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""LoRA adapters in the server: made by create, of Ollama's store and in the folder; what they say, and that what was computed
with one is of use to nobody without it."""
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

import harness
from harness import WORDS, WORDS_MOE

PROMPT = "Write a short poem about rivers."
# A prompt that is long enough to be kept on the disk.
LONG = "Rivers have numbers: " + ", ".join(f"number {i} is the river {i * i}" for i in range(20)) + ". " + PROMPT
TOKENS = 32
OPTIONS = ("--memory", "1G", "--threads", "1", "--parallel", "1", "--context", "2048")


def run(model, *options, env=None):
    """What `hypura run` answers; env: where the model is known by its name."""
    answer = subprocess.run(
        [harness.HYPURA, "run", model if env else harness.model_path(model), "--prompt", PROMPT,
         "--max-tokens", str(TOKENS), "--temp", "0", "--threads", "1",
         *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        env=dict(os.environ, OMP_WAIT_POLICY="passive", **(env or {})))
    return answer.stdout.decode()[:-1]


def chat(server, model, prompt=PROMPT, tokens=TOKENS, **more):
    return server.chat(model, prompt, tokens, **more)


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Adapters(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="hypura-test-")
        cls.paths = {}
        for name, model, seed in ("dense", WORDS, 1), ("other", WORDS, 2), ("moe", WORDS_MOE, 3):
            cls.paths[name] = os.path.join(cls.folder, name + ".gguf")
            subprocess.run([os.path.join(harness.BUILD, "mkmodel"), "lora", harness.model_path(model), cls.paths[name], "--rank", "8",
                            "--seed", str(seed)], check=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def put(self, server, path):
        digest = digest_of(path)
        with open(path, "rb") as file:
            self.assertEqual(server.json("POST", "/api/blobs/sha256:" + digest, file.read())[0], 201)
        return digest

    def create(self, server, name, model, path):
        digest = self.put(server, path)
        return server.json("POST", "/api/create", {
            "model": name, "from": model, "adapters": {"adapter.gguf": "sha256:" + digest}, "stream": False})

    def test_create(self):
        """A model made with an adapter says what run says with it, also with its weights paged, also after a restart."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        try:
            with harness.Server(*OPTIONS, "--weights", "60%", folder=folder) as server:
                for name, model in ("dense", WORDS), ("moe", WORDS_MOE):
                    status, answer = self.create(server, "my-" + name, model, self.paths[name])
                    self.assertEqual((status, answer), (200, {"status": "success"}))
                    wanted = run(model, "--weights", "60%", "--lora", self.paths[name])
                    self.assertNotEqual(wanted, run(model, "--weights", "60%"))
                    self.assertEqual(chat(server, "my-" + name)[0], wanted)
                    status, shown = server.json("POST", "/api/show", {"model": "my-" + name})
                    self.assertIn("\nADAPTER ", shown["modelfile"])
                status, copied = server.json("POST", "/api/copy", {"source": "my-moe", "destination": "copy"})
                self.assertEqual(status, 200, copied)
                self.assertEqual(chat(server, "copy")[0], wanted)
                names = {model["name"] for model in server.json("GET", "/api/tags")[1]["models"]}
                self.assertEqual(names, {name + ":latest" for name in (WORDS, WORDS_MOE, "my-dense", "my-moe", "copy")})
                adapter = os.path.join(server.models, "my-dense.adapter.gguf")
                shutil.copy(self.paths["other"], adapter + ".new")
                os.replace(adapter + ".new", adapter) # under a model that is loaded
                time.sleep(1.1) # folders are looked at again after a second
                self.assertEqual(chat(server, "my-dense")[0], run(WORDS, "--weights", "60%", "--lora", self.paths["other"]))
                self.assertEqual(server.json("DELETE", "/api/delete", {"model": "my-dense"})[0], 200)
                self.assertFalse(os.path.exists(os.path.join(server.models, "my-dense.adapter.gguf")))
                self.assertTrue(os.path.exists(os.path.join(server.models, "my-moe.adapter.gguf")))
            with harness.Server(*OPTIONS, "--weights", "60%", folder=folder) as server:
                self.assertEqual(chat(server, "my-moe")[0], wanted)
        finally:
            shutil.rmtree(folder)

    def test_what_is_not_created(self):
        with harness.Server(*OPTIONS, models=[WORDS]) as server:
            digest = self.put(server, self.paths["dense"])
            body = {"model": "x", "from": WORDS, "stream": False}
            for adapters in ({"a": digest, "b": "sha256:" + 64 * "0"}, {"a": 7}, [digest], "x", {"a": "sha256:12"}):
                status, answer = server.json("POST", "/api/create", {**body, "adapters": adapters})
                self.assertEqual(status, 400, answer)
            status, answer = self.create(server, "x", WORDS, self.paths["moe"])
            self.assertEqual(status, 400, answer)
            self.assertIn("take the model it was made for", answer["error"])
            status, answer = server.json("POST", "/api/create", {"model": "x", "files": {"a": "sha256:" + digest}, "stream": False})
            self.assertIn("is an adapter", answer["error"])
            self.assertEqual(self.create(server, "y", WORDS, self.paths["dense"])[0], 200)
            digest = "sha256:" + self.put(server, self.paths["dense"])
            status, answer = server.json("POST", "/api/create", {**body, "adapters": {str(i): digest for i in range(9)}})
            self.assertEqual(status, 400, answer)
            self.assertIn("more than 8 adapters", answer["error"])
            self.assertEqual({model["name"] for model in server.json("GET", "/api/tags")[1]["models"]},
                             {WORDS + ":latest", "y:latest"})

    def test_several(self):
        """Modelfiles with several, at once and one upon the other: what run says with all of them, each with its scale."""
        both = [self.paths["dense"], self.paths["other"]]
        wanted = run(WORDS, "--lora", ",".join(both))
        with harness.Server(*OPTIONS, models=[WORDS]) as server:
            digests = {str(i): "sha256:" + self.put(server, path) for i, path in enumerate(both)}
            status, answer = server.json("POST", "/api/create", {"model": "two", "from": WORDS, "adapters": digests, "stream": False})
            self.assertEqual((status, answer), (200, {"status": "success"}))
            self.assertEqual(chat(server, "two")[0], wanted)
            self.assertEqual(self.create(server, "one", WORDS, both[0])[0], 200)
            self.assertEqual(self.create(server, "upon", "one", both[1])[0], 200)
            self.assertEqual(chat(server, "upon")[0], wanted)
            self.assertEqual(server.json("POST", "/api/show", {"model": "two"})[1]["modelfile"].count("\nADAPTER "), 2)
            listed = server.json("GET", "/lora-adapters?model=two")[1]
            self.assertEqual([(one["id"], one["scale"], os.path.basename(one["path"])) for one in listed],
                             [(0, 1.0, "two.adapter.gguf"), (1, 1.0, "two.adapter-2.gguf")])
            halves = run(WORDS, "--lora", f"{both[0]}:0.5,{both[1]}:0.25")
            second = run(WORDS, "--lora", f"{both[1]}:0.5")
            self.assertEqual(len({wanted, halves, second}), 3)
            self.assertEqual(chat(server, "two", lora=[{"id": 1, "scale": 0.25}, {"id": 0, "scale": 0.5}])[0], halves)
            self.assertEqual(chat(server, "two", lora=[{"id": 1, "scale": 0.5}])[0], second)
            self.assertEqual(chat(server, "two")[0], wanted)
            self.assertEqual(server.json("POST", "/lora-adapters?model=two", [{"id": 0, "scale": 0.5}, {"id": 1, "scale": 0.25}])[0], 200)
            self.assertEqual(chat(server, "two")[0], halves)
            status, answer = server.json("POST", "/lora-adapters?model=two", [{"id": 2, "scale": 1}])
            self.assertEqual(status, 400)
            self.assertIn("no adapter of id 2: there are 2", json.dumps(answer))
            self.assertEqual(run("two", env={"HYPURA_MODELS": server.models}), wanted) # and so does the program without a server

    def test_ollamas_store(self):
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        manifests = os.path.join(folder, "manifests", "registry.ollama.ai", "library", "tuned")
        os.makedirs(manifests)
        os.makedirs(os.path.join(folder, "blobs"))

        def write(tag, *adapters):
            layers = []
            for kind, path in ("model", harness.model_path(WORDS)), *(("adapter", path) for path in adapters):
                digest = digest_of(path)
                blob = os.path.join(folder, "blobs", "sha256-" + digest)
                if not os.path.exists(blob):
                    shutil.copy(path, blob)
                layers.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": "sha256:" + digest})
            with open(os.path.join(manifests, tag), "w") as file:
                json.dump({"layers": layers}, file)

        write("latest", self.paths["dense"])
        write("plain")
        write("other", self.paths["other"])
        write("two", self.paths["dense"], self.paths["other"])
        write("wrong", self.paths["moe"])
        try:
            with harness.Server(*OPTIONS, models=[], ollama=folder) as server:
                texts = {"tuned": run(WORDS, "--lora", self.paths["dense"]), "tuned:plain": run(WORDS),
                         "tuned:other": run(WORDS, "--lora", self.paths["other"])}
                self.assertEqual(len(set(texts.values())), 3)
                for _ in range(2): # of one file of weights, all loaded
                    for name, text in texts.items():
                        self.assertEqual(chat(server, name)[0], text)
                self.assertEqual(chat(server, "tuned:two")[0], run(WORDS, "--lora", f"{self.paths['dense']},{self.paths['other']}"))
                status, answer = server.json("POST", "/api/generate", {"model": "tuned:wrong", "prompt": "hi", "stream": False})
                self.assertGreaterEqual(status, 400)
                self.assertIn("take the model it was made for", answer["error"])
            for name in "tuned", "tuned:other": # and so does the program without a server
                self.assertEqual(run(name, env=dict(OLLAMA_MODELS=folder)), texts[name])
        finally:
            shutil.rmtree(folder)

    def test_scales(self):
        """Each request has its own, whatever slots hold; what says nothing has that of /lora-adapters."""
        path = self.paths["dense"]
        texts = {scale: run(WORDS, "--lora", f"{path}:{scale}") for scale in (1, 0.5)}
        texts[0] = run(WORDS)
        self.assertEqual(len(set(texts.values())), 3)
        with harness.Server(*OPTIONS, models=[WORDS]) as server:
            self.assertEqual(self.create(server, "tuned", WORDS, path)[0], 200)
            query = "/lora-adapters?model=tuned"
            self.assertEqual(chat(server, "tuned")[0], texts[1])
            self.assertEqual(chat(server, "tuned", lora=[{"id": 0, "scale": 1}])[0], texts[1])
            messages = {"model": "tuned", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
            self.assertEqual(server.json("POST", "/v1/messages", messages)[0], 200)
            for scale in 0.5, 0, 1, 0.5:
                self.assertEqual(chat(server, "tuned", lora=[{"id": 0, "scale": scale}])[0], texts[scale])
                self.assertEqual(chat(server, "tuned")[0], texts[1])
            status, answer = server.json("POST", "/v1/messages", messages)
            self.assertEqual(status, 400, answer)
            self.assertIn("another scale", json.dumps(answer))
            status, adapters = server.json("GET", query)
            self.assertEqual((status, len(adapters), adapters[0]["id"], adapters[0]["scale"]), (200, 1, 0, 1.0))
            self.assertEqual(server.json("POST", query, [{"id": 0, "scale": 0.5}]), (200, {"success": True}))
            self.assertEqual(server.json("GET", query)[1][0]["scale"], 0.5)
            self.assertEqual(chat(server, "tuned")[0], texts[0.5])
            status, answer = server.json("POST", "/api/chat", {
                "model": "tuned", "messages": [{"role": "user", "content": PROMPT}], "stream": False,
                "options": {"temperature": 0, "num_predict": TOKENS}})
            self.assertEqual(answer["message"]["content"], texts[0.5])
            for path, body in ("/v1/messages", messages), ("/v1/embeddings", {"model": "tuned", "input": "hi"}), \
                              ("/api/embed", {"model": "tuned", "input": "hi"}): # loads it anew, for embeddings
                status, answer = server.json("POST", path, body)
                self.assertEqual(status, 400, answer)
                self.assertIn("another scale", json.dumps(answer))
            self.assertEqual(chat(server, "tuned")[0], texts[0.5])
            self.assertEqual(chat(server, "tuned", lora=[{"id": 0, "scale": 1}])[0], texts[1])
            self.assertEqual(server.json("POST", query, []), (200, {"success": True}))
            self.assertEqual(chat(server, "tuned")[0], texts[0])
            for wrong in {"id": 0}, [{"id": 1, "scale": 1}], [{"id": 0}], [{"id": 0, "scale": "x"}], b"[":
                self.assertEqual(server.json("POST", query, wrong)[0], 400)
            self.assertEqual(server.json("GET", f"/lora-adapters?model={WORDS}"), (200, []))
            self.assertEqual(server.json("POST", f"/lora-adapters?model={WORDS}", [{"id": 0, "scale": 1}])[0], 400)

    def test_states(self):
        """A conversation that was kept is of the model and the adapter it was computed with."""
        folder, cache = tempfile.mkdtemp(prefix="hypura-test-"), tempfile.mkdtemp(prefix="hypura-test-")
        harness.make_cache(cache)
        options = dict(folder=folder, models=[WORDS], env={"HYPURA_CACHE_DIR": cache})
        adapter = os.path.join(folder, "models", "tuned.adapter.gguf")

        def turn():
            """The answer to the long prompt of a server of its own, and how much of the prompt it had."""
            with harness.Server(*OPTIONS, **options) as server:
                text, timings = chat(server, "tuned", LONG, 24)
                return text, timings.get("cache_n", 0)

        def digests():
            return {name: digest_of(os.path.join(folder, name)) for folder, _, names in os.walk(os.path.join(cache, "conversations"))
                    for name in names}

        try:
            os.makedirs(os.path.join(folder, "models"))
            os.link(harness.model_path(WORDS), os.path.join(folder, "models", "tuned.gguf"))
            plain = turn()
            self.assertEqual(plain[1], 0)
            self.assertGreater(turn()[1], 100) # in another part: rounded in other places
            shutil.copy(self.paths["dense"], adapter)
            first = turn()
            self.assertNotEqual(first[0], plain[0])
            self.assertEqual(first[1], 0) # nothing of what was computed without
            again = turn()
            self.assertNotEqual(again[0], plain[0])
            self.assertGreater(again[1], 100)
            times = os.stat(adapter)
            shutil.copy(self.paths["other"], adapter + ".new")
            os.utime(adapter + ".new", ns=(times.st_atime_ns, times.st_mtime_ns)) # as large, and as old
            os.replace(adapter + ".new", adapter)
            other = turn()
            self.assertNotEqual(other[0], first[0])
            self.assertEqual(other[1], 0)
            kept = turn()
            self.assertGreater(kept[1], 100)
            states = digests()
            with harness.Server(*OPTIONS, **options) as server: # with another scale none is kept, and none is put back
                text, timings = chat(server, "tuned", LONG, 24, lora=[{"id": 0, "scale": 0}])
                self.assertEqual((text, timings.get("cache_n", 0)), (plain[0], 0))
                chat(server, "tuned", "And now something else: " + LONG, lora=[{"id": 0, "scale": 0}])
            self.assertEqual(digests(), states)
            self.assertEqual(turn(), kept)
        finally:
            shutil.rmtree(folder)
            shutil.rmtree(cache)


if __name__ == "__main__":
    unittest.main()

"""Pictures for the server: they reach the model in every API, are fetched for it, and what must not be fetched is not."""
import base64
import http.server
import json
import os
import shutil
import struct
import tempfile
import threading
import unittest

import harness
import made
from harness import SHORT, WORDS, WORDS_MOE, user


class Images(unittest.TestCase):
    """A projector with random weights says nothing about a picture; that it reaches the model shows in the tokens."""

    def test_pictures_reach_the_model(self):
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        os.mkdir(os.path.join(folder, "models"))
        made.write_projector(os.path.join(folder, "models", WORDS + ".mmproj.gguf"), made.WORDS_WIDTH)
        with harness.Server("--memory", "1G", "--threads", "1", "--context", "512", folder=folder) as server:
            pictures = [made.picture(200), made.picture(20)]

            def ask(path, body):
                status, _, data = server.ask("POST", path, body)
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
                body = {"model": WORDS, "max_tokens": 2, "messages": user(parts + [{"type": "text", "text": "What is this?"}])}
                return ask("/v1/chat/completions", body)["usage"]["prompt_tokens"]

            for count in chat, generate, openai:
                none, one, two = (count(pictures[:n]) for n in range(3))
                self.assertGreaterEqual(one - none, 4, count) # its four tokens, and what the server puts around them
                self.assertGreaterEqual(two - one, 4, count)
            self.assertIn("vision", ask("/api/show", {"model": WORDS})["capabilities"])
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
                return [server.ask("POST", path, dict(body, model=WORDS)) for path, body in (
                    ("/v1/chat/completions", {"max_tokens": 2, "messages": user([{"type": "image_url", "image_url": {"url": url}}, text])}),
                    ("/v1/responses", {"max_output_tokens": 2, "input": user(
                        [{"type": "input_image", "image_url": url}, dict(text, type="input_text")])}),
                    ("/v1/messages", {"max_tokens": 2, "messages": user([
                        {"type": "image", "source": {"type": "url", "url": url}}, text])}))]

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
            for path, body in (("/api/chat", dict(SHORT, model=WORDS_MOE, messages=[dict(user("hi")[0], images=pictures)])),
                               ("/api/generate", dict(SHORT, model=WORDS_MOE, prompt="hi", images=pictures)),
                               ("/v1/chat/completions", {"model": WORDS_MOE, "messages": user([image])}),
                               ("/v1/responses", {"model": WORDS_MOE, "input": user([dict(
                                   type="input_image", image_url="data:image/png;base64," + pictures[0])])}),
                               ("/v1/messages", {"model": WORDS_MOE, "max_tokens": 2, "messages": user([dict(type="image", source=dict(
                                   type="base64", media_type="image/png", data=pictures[0]))])}),
                               ("/api/chat", dict(SHORT, messages=[dict(user("hi")[0], images=["AAAA"])]))):
                status, _, data = server.ask("POST", path, body)
                self.assertEqual(status, 400, (path, data))
                self.assertEqual("it has no projector" in data.decode(), body["model"] == WORDS_MOE, data)
            loaded = [m["name"] for m in json.loads(server.ask("GET", "/api/ps")[2])["models"]]
            self.assertEqual(loaded, [WORDS + ":latest"]) # the other one was not, to be told that


class Elsewhere(unittest.TestCase):
    def test_the_servers_own_page(self):
        """As a browser of another machine sees it; and what that machine is not to reach with us."""
        folder = tempfile.mkdtemp(prefix="hypura-test-")
        self.addCleanup(shutil.rmtree, folder)
        os.mkdir(os.path.join(folder, "models"))
        made.write_projector(os.path.join(folder, "models", WORDS + ".mmproj.gguf"), made.WORDS_WIDTH)
        with harness.Server("--host", "0.0.0.0", "--api-key", "k", "--threads", "1", "--memory", "1G", "--context", "512",
                            models=[WORDS], folder=folder) as server:
            for origin, host, wanted in (("http://192.168.1.5:80", "192.168.1.5:80", 200), ("https://box.lan", "box.lan", 200),
                                         ("http://192.168.1.5:80", "192.168.1.6:80", 403), ("http://evil.example", "box.lan", 403)):
                status, _ = server.json("GET", "/api/version", Origin=origin, Host=host, Authorization="Bearer k")
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
                status, answer = server.json("POST", "/v1/chat/completions",
                                     {"model": WORDS, "messages": [{"role": "user", "content": [part]}]}, Authorization="Bearer k")
                self.assertEqual(status, 400, answer)
                self.assertIn("no address of the open network", answer["error"]["message"])
            self.assertEqual(asked, [])
            # Some bytes that would become gigabytes in the engine: told before the model is loaded.
            head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIB", 13, b"IHDR", 20000, 20000, 1)
            picture = base64.b64encode(head + b"\0" * 40).decode()
            data = "data:image/png;base64," + picture
            for path, message in (("/api/chat", {"role": "user", "content": "hi", "images": [picture]}),
                                  ("/v1/chat/completions",
                                   {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}),
                                  ("/v1/messages", {"role": "user", "content": [{"type": "image", "source": {
                                      "type": "base64", "media_type": "image/png", "data": picture}}]})):
                body = {"model": WORDS, "max_tokens": 1, "messages": [message]}
                status, answer = server.json("POST", path, body, Authorization="Bearer k")
                self.assertEqual(status, 400, answer)
                self.assertIn("million pixels", json.dumps(answer))
            self.assertEqual(server.engines(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)

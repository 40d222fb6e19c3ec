"""API keys, of a file and of the environment: any of several, and none where everybody can read it."""
import os
import subprocess
import tempfile
import unittest

import harness
from harness import WORDS


def status(server, key=None):
    return server.ask("GET", "/api/tags", **({"Authorization": "Bearer " + key} if key else {}))[0]


def ask(server, *words, **more):
    return subprocess.run([harness.HYPURA, "run", WORDS, "--server", server.url, "--prompt", "hi", "--max-tokens", "2", *words],
                          env={**os.environ, **more}, capture_output=True, text=True, errors="replace", check=False)


class Keys(unittest.TestCase):
    def test_of_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            file, one = os.path.join(folder, "keys"), os.path.join(folder, "one")
            for path, text in ((file, "# of the house\n\nfirst\r\n  second, with a comma\n"), (one, "first\n")):
                with open(path, "w", encoding="utf-8") as to:
                    to.write(text)
            with harness.Server("--api-key-file", file, "--api-key", "third,fourth", "--memory", "1G", "--threads", "1",
                                models=[WORDS], env={"HYPURA_API_KEY": "fifth"}) as server:
                for key in ("first", "second, with a comma", "third", "fourth"):
                    self.assertEqual(status(server, key), 200, key)
                for key in (None, "", "# of the house", "fifth", "second", "third,fourth"):
                    self.assertEqual(status(server, key), 401, key)
                self.assertEqual(ask(server, "--api-key-file", one).returncode, 0)
                self.assertIn("(401)", ask(server).stderr)

    def test_of_the_environment(self):
        with harness.Server("--host", "0.0.0.0", "--memory", "1G", "--threads", "1", models=[WORDS],
                            env={"HYPURA_API_KEY": "alpha,beta"}) as server:
            self.assertEqual([status(server, key) for key in (None, "alpha", "beta", "alpha,beta")], [401, 200, 200, 401])
            self.assertEqual(ask(server, HYPURA_API_KEY="beta").returncode, 0)
            for process in (server.process.pid, *server.engines()):
                with open(f"/proc/{process}/cmdline", encoding="utf-8") as line:
                    self.assertNotIn("alpha", line.read())

    def test_of_none(self):
        with self.assertRaisesRegex(RuntimeError, "there is no key in /dev/null"):
            harness.Server("--api-key-file", "/dev/null", models=[WORDS])
        with self.assertRaisesRegex(RuntimeError, "option --api-key: it is empty"):
            harness.Server("--api-key", ",", models=[WORDS])


if __name__ == "__main__":
    unittest.main(verbosity=2)

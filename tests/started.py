"""Programs that a test starts in a folder of its own, and a server among them. At the end the folder is gone, and so are they."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# Who names a GPU loads the drivers of all: with none of Vulkan's here, a third of what an engine takes to start.
NO_DRIVERS = {"VK_DRIVER_FILES": os.devnull, "VK_ICD_FILENAMES": os.devnull}


class Place:
    """The folder, with a cache folder in it that has the profile of `cache`. What a server said last is printed where a test fails."""

    def __init__(self, prefix, cache):
        self.top = tempfile.mkdtemp(prefix=prefix)
        self.started = []
        os.makedirs(self.path("cache"))
        shutil.copy(os.path.join(cache, "profile.json"), self.path("cache"))

    def path(self, *words):
        return os.path.join(self.top, *words)

    def start(self, *words, env=None, **more):
        """A process, as subprocess.Popen has it; env: what it finds in its environment besides."""
        env = {**os.environ, "OMP_WAIT_POLICY": "passive", "HYPURA_CACHE_DIR": self.path("cache"), **(env or {})}
        child = subprocess.Popen(words, env=env, **more)
        self.started.append(child)
        return child

    def run(self, checks):
        """Runs each of these, and says how long it took: functions, or a function and what it is given."""
        for check, *given in checks:
            begin = time.time()
            check(*given)
            print(f"{' '.join(map(str, (check.__name__, *given)))}: ok, {time.time() - begin:.1f} s", flush=True)

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        if failed and os.path.exists(self.path("server.log")):
            with open(self.path("server.log"), encoding="utf-8") as log:
                print(log.read()[-4000:])
        for child in self.started:
            if child.poll() is None:
                child.kill()
                child.wait()
        shutil.rmtree(self.top, ignore_errors=True)


class Server:
    """`hypura serve`, as `words` start it; url: where it listens."""

    def __init__(self, place, *words, **more):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.path("server.log"))
        # Both write at its end: who reads from its beginning would else have the other write there.
        self.log = open(place.path("server.log"), "a+", encoding="utf-8")
        self.process = place.start(*words, "--port", "0", "--no-ollama", "--threads", "1", stdout=self.log, stderr=self.log, **more)
        end = time.monotonic() + 60
        while not (found := re.search(r"http://[0-9.]+:[0-9]+", self.read_log())):
            assert self.process.poll() is None, "the server ended: " + self.read_log()
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.01)
        self.url = found[0]

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def ask(self, route, data=None, method=None):
        """Status and text of an answer."""
        try:
            with self.open(route, data, method) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def open(self, route, data=None, method=None):
        """An answer that is read as it comes."""
        return urllib.request.urlopen(urllib.request.Request(self.url + route, data=data, method=method), timeout=300)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0, self.read_log()
        self.log.close()

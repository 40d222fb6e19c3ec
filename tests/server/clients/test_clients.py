"""The official clients of Ollama, OpenAI and Anthropic drive the server: SmolLM2, and the mixture at half its weights."""
import gc
import json
import os
import subprocess
import tempfile
import unittest

gc.disable()  # the clients make a million objects that stay
import anthropic
import ollama
import openai
gc.enable()
gc.freeze()

import harness
import made
from harness import DENSE, MOE, WORDS, WORDS_MOE, user

TOOLS = "smollm2-tools"
QUESTION = "Tell me about the capital of France."
TOKENS = 10  # so many come out the same wherever a prompt was computed before, which rounds in other places
GREEDY = {"temperature": 0, "num_predict": TOKENS}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": dict(WEATHER["function"], name="get_time")}
CITIES = "Rome", "Oslo"  # calls that a small model goes on with; each client asks the same, which is computed once
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def setUpModule():
    global server
    server = harness.Server("--weights", "224M", "--threads", "1", "--memory", "2G", models=(DENSE, MOE, WORDS, WORDS_MOE))
    made.with_template(harness.model_path(DENSE), f"{server.models}/{TOOLS}.gguf", made.TEMPLATE)


def tearDownModule():
    assert server.stop() == 0
    assert "".join(server.lines).count(" error ") == 0, server.lines


class Ollama(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = ollama.Client(host=server.url)

    def test_list_and_show(self):
        names = [model.model for model in self.client.list().models]
        self.assertEqual(sorted(names), sorted(name + ":latest" for name in (DENSE, MOE, WORDS, WORDS_MOE, TOOLS)))
        model = next(m for m in self.client.list().models if m.model.startswith(MOE))
        self.assertGreater(model.size, 400e6)
        self.assertEqual((model.details.format, model.details.family), ("gguf", "llama"))
        shown = self.client.show(MOE)
        self.assertEqual(shown.modelinfo["llama.expert_count"], 8)
        self.assertIn("completion", shown.capabilities)
        self.assertIn("im_start", shown.template)

    def test_greedy_text_is_that_of_run(self):
        wanted = harness.greedy(MOE, QUESTION, TOKENS)
        self.assertIn("Paris", wanted)
        answer = self.client.chat(MOE, user(QUESTION), options=GREEDY)
        self.assertEqual(answer.message.content, wanted)
        self.assertEqual(self.client.generate(MOE, QUESTION, options=GREEDY).response, wanted)

    def test_an_answer_goes_on_from_what_is_given(self):
        given = {"role": "assistant", "content": "The capital of France is"}
        for stream in False, True:
            answer = self.client.chat(DENSE, user(QUESTION) + [given], options=dict(GREEDY, num_predict=4), stream=stream)
            text = "".join(piece.message.content for piece in answer) if stream else answer.message.content
            self.assertTrue(text.startswith(" Paris"), text)

    def test_chat_streams(self):
        lines = list(self.client.chat(WORDS_MOE, user(QUESTION), options=GREEDY, stream=True))
        self.assertGreater(len(lines), 5)
        self.assertTrue(all(not line.done for line in lines[:-1]))
        whole = self.client.chat(WORDS_MOE, user(QUESTION), options=GREEDY)
        self.assertEqual("".join(line.message.content for line in lines), whole.message.content)
        last = lines[-1]
        self.assertEqual((last.done, last.done_reason, last.eval_count), (True, "length", TOKENS))
        self.assertEqual(last.prompt_eval_count, whole.prompt_eval_count)
        self.assertGreater(last.total_duration, last.eval_duration)
        self.assertGreater(last.eval_duration, 1000)

    def test_generate_streams_raw_text(self):
        lines = list(self.client.generate(DENSE, "One, two, three,", raw=True, stream=True, options=GREEDY))
        self.assertIn("four", "".join(line.response for line in lines))

    def test_generate_goes_on_from_a_context(self):
        options = {"temperature": 0, "num_predict": 12}
        first = self.client.generate(WORDS, "My name is Ada. Say hello.", options=options)
        self.assertGreater(len(first.context), first.prompt_eval_count)
        second = self.client.generate(WORDS, "Say it again.", context=first.context, stream=True, options=options)
        last = list(second)[-1]
        self.assertEqual(last.context[:len(first.context)], first.context)
        self.assertGreater(last.prompt_eval_count, len(first.context))
        raw = self.client.generate(WORDS, "One, two,", raw=True, options=options)
        self.assertIsNone(raw.context)
        # A template that is the prompt alone is raw text.
        plain = self.client.generate(WORDS, "One, two,", template="{{ .Prompt }}", options=options)
        self.assertEqual(plain.response, raw.response)

    def test_stop_and_seed(self):
        answer = self.client.generate(DENSE, QUESTION, options=dict(GREEDY, stop=["Paris"]))
        self.assertNotIn("Paris", answer.response)
        self.assertEqual(answer.done_reason, "stop")
        options = {"seed": 7, "temperature": 1, "num_predict": 12}
        first, second = (self.client.generate(DENSE, QUESTION, options=options).response for _ in range(2))
        self.assertEqual(first, second)

    def test_formats(self):
        answer = self.client.chat(WORDS, user("Describe a person."), format=PERSON,
                                  options={"temperature": 0, "num_predict": 100})
        person = json.loads(answer.message.content)
        self.assertEqual(set(person), {"name", "age"})
        self.assertIsInstance(person["age"], int)
        answer = self.client.chat(WORDS, user("Write one short JSON object."), format="json",
                                  options={"temperature": 0, "num_predict": TOKENS})
        self.assertTrue(answer.message.content.lstrip().startswith("{"))

    def test_tools(self):
        def call(city):
            return {"role": "assistant", "content": "",
                    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": city}}}]}

        messages = []
        for city in CITIES:
            messages += user(f"What is the weather in {city}?") + [call(city)]
            messages += [{"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
        messages += user("What is the weather in Paris?")
        for stream in False, True:
            answer = self.client.chat(TOOLS, messages, tools=[WEATHER, CLOCK], stream=stream,
                                      options={"temperature": 0, "num_predict": 60})
            lines = list(answer) if stream else [answer]
            calls = [c for line in lines for c in line.message.tool_calls or []]
            self.assertIsNone(stream and lines[-1].message.tool_calls or None) # they come before the end
            self.assertEqual([c.function.name for c in calls], ["get_weather"])
            self.assertEqual(calls[0].function.arguments, {"city": "Paris"})

        # A model whose template has no place for them is not asked in vain.
        with self.assertRaises(ollama.ResponseError) as refused:
            self.client.chat(DENSE, messages, tools=[WEATHER])
        self.assertEqual(refused.exception.status_code, 400)
        self.assertIn("does not support tools", refused.exception.error)

    def test_logprobs(self):
        answer = self.client.chat(WORDS, user("hi"), logprobs=True, top_logprobs=2, options={"num_predict": 2})
        self.assertEqual(len(answer.logprobs), 2)
        self.assertEqual(len(answer.logprobs[0].top_logprobs), 2)

    def test_embeddings(self):
        answer = self.client.embed(DENSE, ["the king", "the queen", "gravel"])
        king, queen, gravel = answer.embeddings
        self.assertEqual(len(king), 576)
        self.assertGreater(sum(a * b for a, b in zip(king, queen)), sum(a * b for a, b in zip(king, gravel)))
        one = self.client.embeddings(DENSE, "the king").embedding # of its own length, as Ollama's older route gives it
        length = sum(x * x for x in one) ** 0.5
        self.assertGreater(length, 2)
        self.assertLess(max(abs(a - b / length) for a, b in zip(king, one)), 1e-3)
        # The same engine goes on with text.
        self.assertEqual(self.client.generate(DENSE, QUESTION, options=GREEDY).eval_count, TOKENS)

    def test_keep_alive(self):
        loaded = lambda: {model.model: model for model in self.client.ps().models}
        self.client.generate(WORDS_MOE, "", keep_alive=0)
        self.assertEqual(self.client.generate(WORDS_MOE, "").done_reason, "load")
        self.assertIn(WORDS_MOE + ":latest", loaded())
        self.assertEqual(loaded()[WORDS_MOE + ":latest"].context_length, 4096)
        self.client.generate(WORDS_MOE, "", keep_alive=-1)
        self.assertGreater(loaded()[WORDS_MOE + ":latest"].expires_at.year, 2100)
        self.assertEqual(self.client.generate(WORDS_MOE, "", keep_alive=0).done_reason, "unload")
        self.assertNotIn(WORDS_MOE + ":latest", loaded())
        self.client.chat(WORDS_MOE, user("hi"), options={"num_predict": 1}, keep_alive="100ms")
        harness.wait_until(lambda: WORDS_MOE + ":latest" not in loaded())

    def test_context_of_another_size_starts_it_anew(self):
        self.client.generate(WORDS_MOE, "hi", options={"num_ctx": 2048, "num_predict": 1})
        size = {model.model: model.context_length for model in self.client.ps().models}
        self.assertEqual(size[WORDS_MOE + ":latest"], 2048)
        with self.assertRaises(ollama.ResponseError) as failed:
            self.client.chat(WORDS_MOE, user("word " * 3000), options={"num_ctx": 2048, "num_predict": 1})
        self.assertEqual(failed.exception.status_code, 400)

    def test_what_is_longer_than_the_context(self):
        options = {"num_ctx": 256, "num_predict": 1}
        talk = [{"role": "system", "content": "Be short."}]
        for i in range(30):
            talk += user(f"What is {i} and {i}?") + [{"role": "assistant", "content": f"It is {i + i}."}]
        talk += user("Say hello.")
        answer = self.client.chat(WORDS, talk, options=options)
        self.assertTrue(128 < answer.prompt_eval_count < 256, answer.prompt_eval_count)
        status, _, data = server.ask("POST", "/api/chat", {
            "model": WORDS, "messages": talk, "options": options, "truncate": False})
        self.assertEqual(status, 400, data)
        texts = ["a", "word " * 300]
        answer = self.client.embed(WORDS, texts, options=options, dimensions=8)
        self.assertLess(answer.prompt_eval_count, 260)
        for vector in answer.embeddings:
            self.assertEqual(len(vector), 8)
            self.assertAlmostEqual(sum(x * x for x in vector), 1, 3)
        with self.assertRaises(ollama.ResponseError) as failed:
            self.client.embed(WORDS, texts, truncate=False, options=options)
        self.assertEqual(failed.exception.status_code, 400)

    def test_a_model_made_of_another(self):
        template = "{{ if .System }}[system]{{ .System }}{{ end }}[user]{{ .Prompt }}[assistant]{{ .Response }}"
        system = "You are Mario."
        made = dict(from_=WORDS, system=system, stream=False,
                    parameters={"temperature": 0, "top_p": 0.1, "num_predict": TOKENS, "stop": ["\n"]})
        wanted = self.client.chat(WORDS, [{"role": "system", "content": system}] + user(QUESTION), options=GREEDY).message.content
        # The same messages by either template, or by one in Jinja, which the other APIs use as well.
        self.client.create("mario", template=template, **made)
        self.assertEqual(self.client.chat("mario", user(QUESTION)).message.content, wanted)
        self.assertEqual(self.client.generate("mario", QUESTION).response, wanted)
        shown = self.client.show("mario")
        for text in "PARAMETER temperature 0", "PARAMETER top_p 0.1\n", "SYSTEM", "{{ .Prompt }}", "FROM /":
            self.assertIn(text, shown.modelfile)
        self.assertEqual(shown.template, template)
        self.client.create("luigi", template="{% for m in messages %}[{{ m.role }}]{% endfor %}", **made)
        status, _, data = server.ask("POST", "/apply-template", {"model": "luigi", "messages": user("hi")})
        self.assertEqual((status, json.loads(data)["prompt"]), (200, "[user]"))
        with self.assertRaises(ollama.ResponseError) as failed:
            self.client.create("wario", template="{{ range .Messages }}", **made)
        # One in Jinja that llama.cpp cannot read, or in which it cannot write a conversation.
        for template, why in (("{% for m in messages %}{{ m.content }}", "nexpected token"),
                              ("{% for m in messages %}{{ m.content | no_filter }}{% endfor %}", "no_filter"),
                              ("{{ 'a" + "{% if %}", "lexer"),
                              ("{% if true %}{{ raise_exception('not this one') }}{% endif %}", "not this one")):
            with self.assertRaisesRegex(ollama.ResponseError, why) as refused:
                self.client.create("wario", template=template, **made)
            self.assertEqual(refused.exception.status_code, 400)
        self.assertNotIn("wario:latest", [model.model for model in self.client.list().models])
        self.assertEqual(failed.exception.status_code, 400)
        for parameters in {"temperature": "hot"}, {"num_ctx": -5}, {"stop": 5}:
            with self.assertRaisesRegex(ollama.ResponseError, "option"):
                self.client.create("wario", from_=WORDS, parameters=parameters)
        for name in "mario", "luigi":
            self.client.delete(name)

    def test_what_it_was_made_with_is_for_all_clients(self):
        made = dict(system="You speak French.", parameters={"temperature": 0, "num_predict": 9, "seed": 7, "num_ctx": 1024},
                    messages=user("Hi") + [{"role": "assistant", "content": "Bonjour."}])
        self.client.create("peach", from_=WORDS, stream=False, **made)
        others = openai.OpenAI(base_url=server.url + "/v1", api_key="any")
        claude = anthropic.Anthropic(base_url=server.url, api_key="any")
        first = others.chat.completions.create(model="peach", messages=user(QUESTION))
        self.assertEqual(first.usage.completion_tokens, 9)
        self.assertEqual({m.model: m.context_length for m in self.client.ps().models}["peach:latest"], 1024)
        wanted = self.client.chat("peach", user(QUESTION))
        self.assertEqual((first.choices[0].message.content, first.usage.prompt_tokens),
                         (wanted.message.content, wanted.prompt_eval_count))
        answer = others.responses.create(model="peach", input=QUESTION)
        self.assertEqual((answer.output_text, answer.usage.input_tokens), (wanted.message.content, wanted.prompt_eval_count))
        answer = claude.messages.create(model="peach", max_tokens=9, messages=user(QUESTION))
        self.assertEqual((answer.content[0].text, answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)),
                         (wanted.message.content, wanted.prompt_eval_count))
        # What a request says itself goes before it.
        own = [{"role": "system", "content": "Be short."}] + user(QUESTION)
        answer = others.chat.completions.create(model="peach", messages=own, max_tokens=3)
        self.assertEqual(answer.usage.completion_tokens, 3)
        self.assertEqual(answer.usage.prompt_tokens, self.client.chat("peach", own).prompt_eval_count)
        settings = json.loads(server.ask("GET", "/props?model=peach")[2])["default_generation_settings"]
        self.assertEqual(settings["params"]["seed"], 7)
        self.client.delete("peach")
        # What was written beside a model by hand is looked at when it is used.
        self.client.create("toad", from_=WORDS, stream=False)
        with open(f"{server.models}/toad.json", "w") as file:
            json.dump({"settings": {"parameters": {"seed": "seven"}}}, file)
        with self.assertRaises(openai.BadRequestError):
            others.chat.completions.create(model="toad", messages=user(QUESTION))
        self.client.delete("toad")

    def test_copy_and_delete(self):
        self.client.copy(WORDS, "mine:small")
        self.assertIn("mine:small", [model.model for model in self.client.list().models])
        self.assertEqual(self.client.generate("mine:small", QUESTION, options=GREEDY).eval_count, TOKENS)
        self.client.delete("mine:small")
        self.assertNotIn("mine:small", [model.model for model in self.client.list().models])

    def test_errors(self):
        for call, code in (
            (lambda: self.client.chat("nobody", user("hi")), 404),
            (lambda: self.client.show("nobody"), 404),
            (lambda: self.client.delete("nobody"), 404),
            (lambda: self.client.copy("nobody", "x"), 404),
            (lambda: self.client.chat(WORDS, user("hi"), keep_alive="soon"), 400),
            (lambda: self.client.generate(WORDS, "hi", template="{{ range .Messages }}"), 400),
            (lambda: self.client.chat(WORDS, user("hi"), think=True), 400),
            (lambda: self.client.generate(WORDS, "hi", suffix="there"), 400),
        ):
            with self.assertRaises(ollama.ResponseError) as failed:
                call()
            self.assertEqual(failed.exception.status_code, code)
        with self.assertRaisesRegex(ollama.ResponseError, f'"{WORDS}" does not support thinking'):
            self.client.chat(WORDS, user("hi"), think=True)
        self.assertEqual(self.client.chat(WORDS, user("hi"), think=False, options={"num_predict": 1}).eval_count, 1)

    def test_threads_and_batch_are_chosen_when_it_is_loaded(self):
        with open(f"/proc/{self.engine_of(WORDS)}/cmdline") as file:
            self.assertIn("--threads\0001\0", file.read())
        first = self.engine_of(WORDS, num_thread=2, num_batch=64)
        with open(f"/proc/{first}/cmdline") as file:
            line = file.read()
        self.assertIn("--threads\0002\0", line)
        self.assertIn("--batch\00064\0", line)
        # What is not asked for stays as it is.
        self.assertEqual(self.engine_of(WORDS), first)
        self.assertEqual(self.engine_of(WORDS, num_thread=2), first)
        # A token of each conversation that may be computed together has room.
        self.assertNotEqual(self.engine_of(WORDS, num_batch=1), first)
        self.assertNotEqual(self.engine_of(WORDS, num_thread=1, num_batch=512), first)

    def engine_of(self, name, **options):
        """The process that answers for a model."""
        self.client.chat(name, user("hi"), options=dict(options, num_predict=1))
        _, _, data = server.ask("GET", "/api/hypura/status")
        return next(m["pid"] for m in json.loads(data)["models"] if m["name"].startswith(name))


class Run(unittest.TestCase):
    def test_run_asks_the_server(self):
        answer = subprocess.run([harness.HYPURA, "run", WORDS_MOE, "--server", server.url, "--prompt", QUESTION, "--temp", "0",
                                 "--max-tokens", str(TOKENS)], capture_output=True, text=True, check=True)
        self.assertEqual(answer.stdout, harness.greedy(WORDS_MOE, QUESTION, TOKENS) + "\n")
        talk = subprocess.run([harness.HYPURA, "run", WORDS, "--server", server.url + "/v1/", "--interactive", "--temp", "0",
                               "--max-tokens", "8"], input="Hello.\nAnd you?\n", capture_output=True, text=True, check=True)
        self.assertEqual(len(talk.stdout.splitlines()), 2)
        # A text ends the answer, and what was said before comes from a file.
        word = answer.stdout.split()[2]
        cut = subprocess.run([harness.HYPURA, "run", WORDS_MOE, "--server", server.url, "--prompt", QUESTION, "--temp", "0",
                              "--max-tokens", str(TOKENS), "--stop", word], capture_output=True, text=True, check=True)
        self.assertEqual(cut.stdout, answer.stdout[:answer.stdout.index(word)] + "\n")
        with tempfile.TemporaryDirectory() as folder:
            for line in ("Hello.", "And you?"):
                said = subprocess.run([harness.HYPURA, "run", WORDS, "--server", server.url, "--temp", "0", "--max-tokens", "8",
                                       "--history", os.path.join(folder, "kept.json"), "--prompt", line],
                                      capture_output=True, text=True, check=True)
        self.assertEqual(said.stdout, talk.stdout.splitlines()[1] + "\n")
        # What it is told first, and what its answer has to be, say the same here and there.
        words = [DENSE, "--prompt", "Are you well?", "--system", "You are a parrot.", "--json-schema",
                 '{"type":"object","properties":{"word":{"enum":["yes","no"]}},"required":["word"]}', "--temp", "0"]
        asked = subprocess.run([harness.HYPURA, "run", *words, "--server", server.url], capture_output=True, text=True, check=True)
        self.assertIn(json.loads(asked.stdout)["word"], ("yes", "no"))
        alone = subprocess.run([harness.HYPURA, "run", harness.model_path(DENSE), *words[1:], "--threads", "1"],
                               capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(asked.stdout), json.loads(alone.stdout))
        # So do penalties, each of which changes the answer.
        words = ["--prompt", "Repeat the word river many times: river river river", "--temp", "0", "--max-tokens", "64"]
        said = set()
        for more in [], ["--repeat-penalty", "1.5"], ["--frequency-penalty", "1.5"], ["--presence-penalty", "1.9"]:
            asked, alone = (subprocess.run([harness.HYPURA, "run", name, *words, *more, *where], capture_output=True, text=True,
                                           check=True).stdout
                            for name, where in ((WORDS, ["--server", server.url]), (harness.model_path(WORDS), ["--threads", "1"])))
            self.assertEqual(asked, alone)
            said.add(asked)
        self.assertGreaterEqual(len(said), 3)
        failed = subprocess.run([harness.HYPURA, "run", "nobody", "--server", server.url, "--prompt", "hi"],
                                capture_output=True, text=True)
        self.assertEqual(failed.returncode, 2)
        self.assertIn("not found", failed.stderr)


class Others(unittest.TestCase):
    def test_documents_are_ranked(self):
        body = {"model": WORDS, "query": "king", "documents": ["the queen", "gravel", "a throne"]}
        for path in "/v1/rerank", "/rerank":
            status, _, data = server.ask("POST", path, body)
            self.assertEqual(status, 200, data)
            self.assertEqual(sorted(r["index"] for r in json.loads(data)["results"]), [0, 1, 2])
        # One engine pools for one of the two; text it writes in any case.
        for path, body in (("/v1/chat/completions", {"model": WORDS, "messages": user("hi"), "max_tokens": 1}),
                           ("/v1/embeddings", {"model": WORDS, "input": "a"}), ("/v1/rerank", body)):
            status, _, data = server.ask("POST", path, body)
            self.assertEqual(status, 200, data)
        status, _, data = server.ask("POST", "/chat/completions/input_tokens", {"model": WORDS, "messages": user("hi")})
        self.assertEqual(status, 200, data)


class OpenAI(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)

    def test_models(self):
        self.assertIn(MOE + ":latest", [model.id for model in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(MOE).id, MOE + ":latest")

    def test_chat(self):
        wanted = harness.greedy(WORDS_MOE, QUESTION, TOKENS)
        options = dict(model=WORDS_MOE, messages=user(QUESTION), temperature=0, max_tokens=TOKENS)
        answer = self.client.chat.completions.create(**options)
        self.assertEqual(answer.choices[0].message.content, wanted)
        self.assertEqual(answer.usage.completion_tokens, TOKENS)
        pieces = [c.choices[0].delta.content or "" for c in
                  self.client.chat.completions.create(stream=True, **options) if c.choices]
        self.assertGreater(len(pieces), 5)
        self.assertEqual("".join(pieces), wanted)

    def test_completions_and_responses(self):
        answer = self.client.completions.create(model=DENSE, prompt="One, two, three,", temperature=0, max_tokens=8)
        self.assertIn("four", answer.choices[0].text)
        answer = self.client.responses.create(model=DENSE, input=QUESTION, temperature=0, max_output_tokens=TOKENS)
        self.assertIn("Paris", answer.output_text)
        events = [event.type for event in self.client.responses.create(
            model=DENSE, input=QUESTION, temperature=0, max_output_tokens=8, stream=True)]
        self.assertEqual((events[0], events[-1]), ("response.created", "response.incomplete"))
        answer = self.client.responses.create(model=WORDS, input="Describe a person.", temperature=0, max_output_tokens=100,
                                              text={"format": {"type": "json_schema", "name": "person", "schema": PERSON}})
        self.assertEqual(set(json.loads(answer.output_text)), {"name", "age"})
        answer = self.client.responses.create(model=WORDS, input="Write one short JSON object.", max_output_tokens=TOKENS,
                                              temperature=0, text={"format": {"type": "json_object"}})
        self.assertTrue(answer.output_text.lstrip().startswith("{"))
        for wanted in {"echo": True}, {"suffix": "the end"}, {"best_of": 2}:
            with self.assertRaisesRegex(openai.BadRequestError, "not served here"):
                self.client.completions.create(model=WORDS, prompt="One", max_tokens=2, **wanted)
        with self.assertRaisesRegex(openai.BadRequestError, "not served here"):
            self.client.embeddings.create(model=WORDS, input="One", dimensions=8)

    def test_an_answer_goes_on_from_what_is_given(self):
        given = {"role": "assistant", "content": "The capital of France is"}
        for more in {}, {"continue_final_message": True, "add_generation_prompt": False}:
            options = dict(model=DENSE, messages=user(QUESTION) + [given], temperature=0, max_tokens=4, extra_body=more)
            whole = self.client.chat.completions.create(**options).choices[0].message.content
            pieces = [c.choices[0].delta.content or "" for c in self.client.chat.completions.create(stream=True, **options)]
            self.assertTrue(whole.startswith(" Paris"), whole)
            self.assertEqual("".join(pieces), whole)
        options = dict(model=DENSE, input=user(QUESTION) + [given], temperature=0, max_output_tokens=4)
        self.assertEqual(self.client.responses.create(**options).output_text, whole)
        pieces = [e.delta for e in self.client.responses.create(stream=True, **options) if e.type == "response.output_text.delta"]
        self.assertEqual("".join(pieces), whole)

    def test_small_things_are_not_passed_over(self):
        options = dict(model=DENSE, prompt="One, two, three,", temperature=0, max_tokens=3)
        for n in 0, 2:
            told = self.client.completions.create(logprobs=n, **options).choices[0].logprobs
            self.assertEqual(told.tokens, [" four", ",", " five"])
            self.assertEqual((told.text_offset, len(told.top_logprobs[0])), ([0, 5, 6], max(n, 1)))
            self.assertEqual(told.top_logprobs[0][" four"], told.token_logprobs[0])
        pieces = [c.choices[0].logprobs for c in self.client.completions.create(logprobs=2, stream=True, **options)]
        self.assertEqual([piece.text_offset for piece in pieces if piece], [[0], [5], [6]])
        options = dict(model=DENSE, messages=user(QUESTION), temperature=0, max_tokens=3)
        answer = self.client.chat.completions.create(stop=["", "nothing"], logprobs=True, top_logprobs=0, **options)
        self.assertEqual((answer.usage.completion_tokens, len(answer.choices[0].logprobs.content)), (3, 3))
        call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
        answer = self.client.chat.completions.create(model=TOOLS, max_tokens=3, messages=user("Weather?") + [
            {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "sunny"}])
        self.assertEqual(answer.usage.completion_tokens, 3)

    def test_a_response_that_is_cut_is_incomplete(self):
        options = dict(model=WORDS, input=QUESTION, temperature=0)
        answer = self.client.responses.create(max_output_tokens=8, **options)
        self.assertEqual((answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        self.assertEqual((answer.output[0].status, answer.usage.output_tokens), ("incomplete", 8))
        self.assertEqual((answer.max_output_tokens, answer.tools, answer.tool_choice), (8, [], "auto"))
        last = list(self.client.responses.create(max_output_tokens=8, stream=True, **options))[-1]
        self.assertEqual((last.type, last.response.status), ("response.incomplete", "incomplete"))
        self.assertEqual(last.response.incomplete_details.reason, "max_output_tokens")
        # The client's own reader of streams puts the answer together, by indexes of its parts. The first token is no whole letter.
        with self.client.responses.stream(extra_body={"grammar": 'root ::= "\U0001f600 is it."'}, max_output_tokens=50,
                                          **options) as stream:
            events = list(stream)
            answer = stream.get_final_response()
        self.assertEqual((answer.status, answer.incomplete_details), ("completed", None))
        self.assertEqual(answer.output_text, "\U0001f600 is it.")
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        self.assertEqual([event.type for event in events].count("response.created"), 1)

    def test_tools_and_formats(self):
        messages = []
        for i, city in enumerate(CITIES):
            function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
            messages += user(f"What is the weather in {city}?")
            messages += [{"role": "assistant", "content": "",
                          "tool_calls": [{"id": str(i), "type": "function", "function": function}]},
                         {"role": "tool", "tool_call_id": str(i), "content": "sunny"}]
        answer = self.client.chat.completions.create(
            model=TOOLS, messages=messages + user("What is the weather in Paris?"), tools=[WEATHER, CLOCK],
            tool_choice="required", temperature=0, max_tokens=100)
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual((answer.choices[0].finish_reason, call.function.name), ("tool_calls", "get_weather"))
        self.assertIsInstance(json.loads(call.function.arguments)["city"], str)
        # One that is named is called, although all examples are of another.
        named = {"type": "function", "function": {"name": "get_time"}}
        for choice in named, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}:
            answer = self.client.chat.completions.create(
                model=TOOLS, messages=messages + user("What is the weather in Paris?"), tools=[WEATHER, CLOCK],
                tool_choice=choice, temperature=0, max_tokens=100)
            self.assertEqual([call.function.name for call in answer.choices[0].message.tool_calls], ["get_time"])
        # A model whose template has no place for them is not asked in vain, but for an answer without them.
        options = dict(model=WORDS, messages=user("hi"), tools=[WEATHER], max_tokens=1)
        for choice in "auto", "required", named:
            with self.assertRaisesRegex(openai.BadRequestError, "does not support tools|not among the tools"):
                self.client.chat.completions.create(tool_choice=choice, **options)
        self.client.chat.completions.create(tool_choice="none", **options)
        answer = self.client.chat.completions.create(
            model=WORDS, messages=user("Describe a person."), temperature=0, max_tokens=100,
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}})
        self.assertEqual(set(json.loads(answer.choices[0].message.content)), {"name", "age"})

    def test_embeddings(self):
        answer = self.client.embeddings.create(model=DENSE, input=["a", "b"])
        self.assertEqual([len(item.embedding) for item in answer.data], [576, 576])

    def test_errors(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="nobody", messages=user("hi"))
        with self.assertRaises(openai.BadRequestError):
            self.client.chat.completions.create(model=WORDS, messages=user("hi"), temperature="hot")
        with self.assertRaises(openai.BadRequestError) as long:
            self.client.chat.completions.create(model=WORDS, messages=user("word " * 9000))
        self.assertEqual((long.exception.code, long.exception.body["n_ctx"] > 0), ("context_length_exceeded", True))
        with self.assertRaises(openai.NotFoundError):
            self.client.images.generate(model=WORDS, prompt="a cat")


class Anthropic(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)

    def test_messages(self):
        wanted = harness.greedy(WORDS_MOE, QUESTION, TOKENS)
        options = dict(model=WORDS_MOE, messages=user(QUESTION), max_tokens=TOKENS, extra_body={"temperature": 0})
        answer = self.client.messages.create(**options)
        self.assertEqual((answer.content[0].text, answer.stop_reason), (wanted, "max_tokens"))
        with self.client.messages.stream(**options) as stream:
            self.assertEqual("".join(stream.text_stream), wanted)
        self.assertEqual(self.client.messages.count_tokens(model=WORDS_MOE, messages=user(QUESTION)).input_tokens,
                         answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0))

    def test_a_prompt_alone(self):
        """max_tokens 0: it is computed and kept, and nothing is written."""
        asked = dict(model=WORDS, messages=user("A prompt that comes again, of some words."))
        first = self.client.messages.create(max_tokens=0, **asked)
        self.assertEqual((first.content, first.stop_reason, first.usage.output_tokens), ([], "max_tokens", 0))
        second = self.client.messages.create(max_tokens=1, **asked)
        self.assertLess(second.usage.input_tokens, first.usage.input_tokens)
        status, answer = server.json("POST", "/v1/messages", asked)
        self.assertEqual((status, answer["type"], answer["error"]["type"]), (400, "error", "invalid_request_error"))
        self.assertIn("max_tokens is missing", answer["error"]["message"])

    def test_an_answer_goes_on_from_what_is_given(self):
        given = {"role": "assistant", "content": [{"type": "text", "text": "The capital of France is"}]}
        options = dict(model=DENSE, messages=user(QUESTION) + [given], max_tokens=4, extra_body={"temperature": 0})
        whole = self.client.messages.create(**options).content[0].text
        self.assertTrue(whole.startswith(" Paris"), whole)
        with self.client.messages.stream(**options) as stream:
            self.assertEqual("".join(stream.text_stream), whole)

    def test_documents_are_read(self):
        document = {"type": "document", "title": "Notes", "source": {"type": "text", "media_type": "text/plain", "data": "It is raining."}}
        count = lambda *blocks: self.client.messages.count_tokens(
            model=WORDS, messages=[{"role": "user", "content": [*blocks, {"type": "text", "text": "So?"}]}]).input_tokens
        self.assertEqual(count(document), count({"type": "text", "text": "Notes\n\nIt is raining."}))
        options = dict(model=WORDS, max_tokens=3)
        for more in ({"messages": [{"role": "user", "content": [dict(document, source={"type": "url", "url": "http://localhost/"})]}]},
                     {"messages": user("hi"), "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
                     {"messages": user("hi"), "extra_body": {"output_format": {"type": "json_schema", "schema": {}}}}):
            with self.assertRaisesRegex(anthropic.BadRequestError, "not served here"):
                self.client.messages.create(**options, **more)
        # What is no route of theirs is told as they tell it.
        with self.assertRaisesRegex(anthropic.NotFoundError, "not_found_error") as refused:
            self.client.messages.batches.list()
        self.assertEqual(refused.exception.body["type"], "error")

    def test_what_stops_an_answer_is_told(self):
        options = dict(model=DENSE, messages=user(QUESTION), max_tokens=TOKENS, extra_body={"temperature": 0})
        answer = self.client.messages.create(stop_sequences=["Paris"], **options)
        self.assertEqual((answer.stop_reason, answer.stop_sequence), ("stop_sequence", "Paris"))
        with self.client.messages.stream(stop_sequences=["Paris"], **options) as stream:
            self.assertEqual(stream.get_final_message().stop_reason, "stop_sequence")

    def test_tools(self):
        messages = []
        for city in CITIES:
            messages += user(f"What is the weather in {city}?") + [
                {"role": "assistant",
                 "content": [{"type": "tool_use", "id": city, "name": "get_weather", "input": {"city": city}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": city, "content": "sunny"}]}]
        tools = [{"name": name, "input_schema": WEATHER["function"]["parameters"]} for name in ("get_weather", "get_time")]
        answer = self.client.messages.create(
            model=TOOLS, messages=messages + user("What is the weather in Paris?"), max_tokens=100,
            extra_body={"temperature": 0}, tools=tools,
            tool_choice={"type": "any"})
        used = [block for block in answer.content if block.type == "tool_use"]
        self.assertEqual([block.name for block in used], ["get_weather"])
        self.assertIsInstance(used[0].input["city"], str)
        options = dict(model=TOOLS, messages=messages + user("What is the weather in Paris?"), max_tokens=100, tools=tools,
                       extra_body={"temperature": 0})
        answer = self.client.messages.create(tool_choice={"type": "tool", "name": "get_time"}, **options)
        self.assertEqual([block.name for block in answer.content if block.type == "tool_use"], ["get_time"])
        answer = self.client.messages.create(tool_choice={"type": "none"}, **dict(options, max_tokens=25))
        self.assertEqual([block.type for block in answer.content], ["text"])
        self.assertIn("get_weather", answer.content[0].text) # it would have called

    def test_models(self):
        listed = self.client.models.list()
        self.assertIn(MOE + ":latest", [model.id for model in listed])
        self.assertFalse(listed.has_more)
        model = self.client.models.retrieve(MOE)
        self.assertEqual((model.id, model.type, model.created_at.tzname()), (MOE + ":latest", "model", "UTC"))
        with self.assertRaises(anthropic.NotFoundError) as refused:
            self.client.models.retrieve("nobody")
        self.assertEqual(refused.exception.body["type"], "error")

    def test_errors(self):
        with self.assertRaisesRegex(anthropic.BadRequestError, r"prompt is too long: \d+ tokens > \d+ maximum"):
            self.client.messages.create(model=WORDS, max_tokens=5, messages=user("word " * 9000))
        with self.assertRaises(anthropic.NotFoundError):
            self.client.messages.create(model="nobody", max_tokens=5, messages=user("hi"))


if __name__ == "__main__":
    unittest.main(verbosity=2)

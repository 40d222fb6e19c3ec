"""Several answers to one request, as OpenAI's client sees them: what they say, and what they took."""
import unittest

import openai

import harness
from harness import WORDS, user

ASK = {"model": WORDS, "messages": user("Tell me of rivers."), "seed": 3}


class Several(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Server("--memory", "1G", "--threads", "1", "--context", "512", models=[WORDS])
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_of_one_prompt(self):
        one = self.client.chat.completions.create(**ASK, max_tokens=5)
        three = self.client.chat.completions.create(**ASK, max_tokens=5, n=3)
        self.assertEqual([choice.index for choice in three.choices], [0, 1, 2])
        self.assertEqual(three.choices[0].message.content, one.choices[0].message.content)
        self.assertEqual(three.choices[0].finish_reason, "length")
        self.assertEqual((three.usage.completion_tokens, three.usage.prompt_tokens), (15, one.usage.prompt_tokens))
        events = list(self.client.chat.completions.create(**ASK, max_tokens=5, n=3, stream=True, stream_options={"include_usage": True}))
        told = [event for event in events if event.usage]
        self.assertEqual(told, [events[-1]])
        self.assertEqual(told[0].usage.completion_tokens, 15)
        self.assertEqual(told[0].usage.prompt_tokens, one.usage.prompt_tokens)

    def test_of_several_prompts(self):
        prompts = ["Rivers are", "The sea is wide and"]
        apart = [self.client.completions.create(model=WORDS, prompt=prompt, max_tokens=4, seed=3) for prompt in prompts]
        both = self.client.completions.create(model=WORDS, prompt=prompts, max_tokens=4, seed=3)
        self.assertEqual(both.usage.prompt_tokens, sum(answer.usage.prompt_tokens for answer in apart))
        self.assertEqual(both.usage.completion_tokens, 8)
        self.assertEqual([choice.index for choice in both.choices], [0, 1])

    def test_what_is_refused(self):
        with self.assertRaises(openai.BadRequestError):
            self.client.chat.completions.create(**ASK, n=1000)
        with self.assertRaisesRegex(openai.BadRequestError, "Unknown reasoning format: odd"):
            self.client.chat.completions.create(**ASK, extra_body={"reasoning_format": "odd"})


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""The endpoint client against a server that is slow, failing, rate-limiting, garbled, strict, or simply fine."""

import base64
import email.utils
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from judges.server import Reply, refused, serving, written

from macro.judges import endpoint as endpoint_module
from macro.judges.chat import LlmRequest
from macro.judges.endpoint import Endpoint
from macro.judges.json_schema import array, number, obj, text
from macro.utils import images as image_io
from macro.utils.errors import ItemError, UserError

KEY = "sk-quite-secret"
SCHEMA = obj(caption=text(), score=number(0, 10))
GOOD = {"caption": "a dog", "score": 7}
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_endpoint_around(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def endpoint(server, **options) -> Endpoint:
    return Endpoint("m", **{"base_url": server.url, "api_key": KEY, "wait": 0.01, "retries": 2, **options})


def ask(question="what is it?", **fields) -> LlmRequest:
    return LlmRequest("You caption images.", (question, IMAGE), SCHEMA, **fields)


def one(server, **options):
    return endpoint(server, **options).ask([ask()])[0]


def test_a_question_goes_out_whole_and_its_answer_comes_back():
    with serving(lambda request, n: written(GOOD)) as server:
        chat = endpoint(server, temperature=0.5, max_tokens=99)
        assert chat.ask([ask(seed=5)]) == [GOOD]
    request = server.requests[0]
    assert server.paths == ["/v1/chat/completions"] and server.keys == [f"Bearer {KEY}"]
    assert (request["model"], request["seed"], request["temperature"]) == ("m", 5, 0.5)
    assert request["max_completion_tokens"] == 99
    assert request["response_format"]["json_schema"]["schema"] == SCHEMA
    system, user = request["messages"]
    assert json.dumps(SCHEMA) in system["content"] and user["content"][0] == {"type": "text", "text": "what is it?"}
    kind, data = user["content"][1]["image_url"]["url"].split(",", 1)
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(image_io.decode(base64.b64decode(data)), IMAGE)
    assert chat.counts == {"asked": 1, "failed": 0, "tokens_in": 7, "tokens_out": 3}


def test_what_is_not_set_is_not_sent_and_words_alone_are_plain_text():
    with serving(lambda request, n: written(GOOD)) as server:
        endpoint(server).ask([LlmRequest("You think.", ("a", "b"), SCHEMA)])
    assert not {"temperature", "max_completion_tokens"} & set(server.requests[0])
    assert server.requests[0]["messages"][1]["content"] == "a\nb"


def test_images_are_shrunk_and_may_be_jpeg():
    with serving(lambda request, n: written(GOOD)) as server:
        endpoint(server, side=15, jpeg=True).ask([ask()])
    kind, data = server.requests[0]["messages"][1]["content"][1]["image_url"]["url"].split(",", 1)
    assert kind == "data:image/jpeg;base64" and image_io.decode(base64.b64decode(data)).shape == (10, 15, 3)


def test_a_batch_is_asked_by_many_threads_and_keeps_its_order():
    def answer(request, n):
        said = request["messages"][1]["content"][0]["text"]
        return Reply(written({"caption": said, "score": 1}), delay=0.05 if said.endswith("0") else 0.01)

    with serving(answer) as server:
        answers = endpoint(server, threads=4).ask([ask(f"question {n}") for n in range(12)])
    assert [answer["caption"] for answer in answers] == [f"question {n}" for n in range(12)]
    assert 2 <= server.most <= 4


def test_the_same_question_twice_is_asked_once():
    with serving(lambda request, n: written({"caption": str(n), "score": 1})) as server:
        first, second, third = endpoint(server).ask([ask(), ask(seed=1), ask()])
    assert first == third != second and len(server.requests) == 2


def test_no_questions_no_requests():
    with serving(lambda request, n: written(GOOD)) as server:
        assert endpoint(server).ask([]) == []
    assert not server.requests


# ---- what passes by itself ----


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_failing_server_is_asked_again(status):
    with serving(lambda request, n: refused(status, "busy") if n < 2 else written(GOOD)) as server:
        chat = endpoint(server)
        assert chat.ask([ask()]) == [GOOD]
    assert chat.counts["retried"] == 2 and len(server.requests) == 3


def test_one_that_goes_on_failing_is_a_failure_of_that_item_alone():
    def answer(request, n):
        said = request["messages"][1]["content"][0]["text"]
        return refused(500, f"out of luck, {KEY}") if said == "bad" else written(GOOD)

    with serving(answer) as server:
        chat = endpoint(server)
        good, bad = chat.ask([ask(), ask("bad")])
    assert good == GOOD and bad == ItemError("status 500: out of luck, ***, 3 times")
    assert chat.counts["failed"] == 1


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
def test_retry_after_is_waited_for(form):
    headers = {
        "seconds": {"Retry-After": "0.3"},
        "milliseconds": {"retry-after-ms": "300"},
        "date": {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)},
    }[form]
    with serving(lambda request, n: refused(429, "slowly", headers) if n == 0 else written(GOOD)) as server:
        start = time.monotonic()
        assert one(server) == GOOD
    assert 0.3 <= time.monotonic() - start < 3


def test_a_server_that_asks_for_too_much_patience_is_given_none():
    with serving(lambda request, n: refused(429, "tomorrow", {"Retry-After": "86400"})) as server:
        failure = one(server)
    assert failure == ItemError("status 429: tomorrow; the server asks for 86400 s of patience")
    assert len(server.requests) == 1


def test_waits_double_up_to_the_longest(monkeypatch):
    waits = []
    monkeypatch.setattr(endpoint_module.time, "sleep", waits.append)
    with serving(lambda request, n: refused(500, "no")) as server:
        one(server, retries=6, wait=1.0, longest_wait=8.0)
    waits = [wait for wait in waits if wait > 0]
    assert len(waits) == 6 and all(
        full / 2 <= wait <= full for wait, full in zip(waits, [1, 2, 4, 8, 8, 8], strict=True)
    )
    assert len(set(waits)) == 6


@pytest.mark.parametrize("reply", [Reply(written(GOOD), delay=0.6), Reply(written(GOOD), drip=0.6)])
def test_a_slow_server_meets_the_time_limit(reply):
    """Also one that is never silent for long."""
    with serving(lambda request, n: reply) as server:
        start = time.monotonic()
        assert one(server, time_limit=0.15, retries=1) == ItemError("timed out, 2 times")
    assert time.monotonic() - start < 1.2


def test_a_cut_off_reply_is_asked_for_again():
    with serving(lambda request, n: Reply(written(GOOD), cut=n == 0)) as server:
        assert one(server) == GOOD
    with serving(lambda request, n: Reply(written(GOOD), cut=True)) as server:
        assert "connection broke" in one(server).reason


@pytest.mark.parametrize("body", [b"<html></html>", {"choices": []}, {"choices": [{"message": None}]}, b"[[" * 9999])
def test_a_reply_that_is_no_completion_is_asked_for_again(body):
    with serving(lambda request, n: Reply(body) if n == 0 else written(GOOD)) as server:
        assert one(server) == GOOD
    with serving(lambda request, n: Reply(body)) as server:
        assert one(server) == ItemError("the reply is no chat completion, 3 times")


# ---- malformed answers ----

MALFORMED = [
    ("I would rather not.", "it holds no JSON object"),
    ("", "it is empty"),
    ('{"caption": "a dog", "sco', "it holds no JSON object"),
    ({"caption": "a dog"}, "the answer has no field 'score'"),
    ({"caption": 3, "score": 3}, "caption is not a text"),
    ({"caption": "a dog", "score": "7"}, "score is not a number"),
    ({"caption": "a dog", "score": True}, "score is not a number"),
    ({"caption": "a dog", "score": 11}, "score is 11, outside 0 to 10"),
    ('{"caption": "a dog", "score": NaN}', "it holds no JSON object"),
    ({"caption": " ", "score": 1}, "caption is empty"),
    ('{"caption": "\\ud800", "score": 1}', "caption holds half a character"),
    ("[1, 2]", "it holds no JSON object"),
]


@pytest.mark.parametrize(("said", "fault"), MALFORMED)
def test_a_malformed_answer_is_sent_back_with_what_is_wrong(said, fault):
    with serving(lambda request, n: written(said) if n == 0 else written(GOOD)) as server:
        chat = endpoint(server)
        assert chat.ask([ask()]) == [GOOD]
    answered, complaint = server.requests[1]["messages"][2:]
    assert answered["role"] == "assistant" and complaint["role"] == "user" and fault in complaint["content"]
    assert chat.counts["malformed"] == 1


def test_one_that_stays_malformed_is_a_failure():
    with serving(lambda request, n: written("no")) as server:
        assert one(server, max_repairs=2) == ItemError("malformed answer 3 times, last: it holds no JSON object")
    assert len(server.requests) == 3


def test_what_read_refuses_is_malformed():
    def read(answer):
        if answer["score"] < 8:
            raise ItemError("too low")
        return answer["score"]

    with serving(lambda request, n: written(GOOD | {"score": 5 + 2 * n})) as server:
        assert endpoint(server).ask([ask(read=read)]) == [9]
    assert "too low" in server.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "said",
    [
        '```json\n{"caption": "a dog", "score": 7}\n```',
        'Surely {this} one: {"caption": "a dog", "score": 7} - hope it helps {}',
        '<think>{"caption": "no", "score": 1, "longer": "than the other"}</think>{"caption": "a dog", "score": 7}',
        '{"caption": "a dog", "score": 7, "confidence": "high"}',
    ],
)
def test_json_is_found_in_what_models_write_around_it(said):
    with serving(lambda request, n: written(said)) as server:
        assert one(server) == GOOD


@pytest.mark.parametrize(
    "choice", [{"finish_reason": "content_filter"}, {"message": {"refusal": "I cannot look at this"}}]
)
def test_a_refusal_is_not_argued_with(choice):
    with serving(lambda request, n: written("", **choice)) as server:
        assert "the model refuses" in one(server).reason
    assert len(server.requests) == 1


# ---- servers that promise no form ----


@pytest.mark.parametrize("known", ["json_object", "text"])
def test_a_server_that_does_not_know_schemas_is_asked_in_the_next_form(known):
    def answer(request, n):
        form = request.get("response_format", {"type": "text"})["type"]
        return written(GOOD) if form in (known, "text") else refused(400, f"response_format {form} is not supported")

    with serving(answer) as server:
        chat = endpoint(server, threads=1)
        assert chat.ask([ask(seed=n) for n in range(3)]) == [GOOD] * 3
    tried = {"json_object": 1, "text": 2}[known]
    assert len(server.requests) == 3 + tried  # found out once, then known


def test_another_bad_request_is_the_items_own_failure():
    with serving(lambda request, n: refused(400, "the image is too large")) as server:
        assert one(server) == ItemError("status 400: the image is too large")
    assert len(server.requests) == 1


# ---- what no question would survive ----


@pytest.mark.parametrize(
    ("reply", "wrong", "mend"),
    [
        (refused(401, f"wrong key {KEY}"), "refuses the key", "OPENAI_API_KEY"),
        (refused(403, "forbidden"), "refuses the key", "OPENAI_API_KEY"),
        (refused(404, "no such model"), "does not know model 'm'", "check the model's name"),
        (refused(400, "no such model", code="model_not_found"), "does not know model 'm'", "check the model's name"),
        (refused(429, "pay", code="insufficient_quota"), "wants to be paid", "check the account"),
        (refused(400, "too new", param="temperature"), "takes no such temperature", "set it to None"),
    ],
)
def test_a_mistake_of_the_users_stops_the_run(reply, wrong, mend):
    with serving(lambda request, n: reply) as server, pytest.raises(UserError) as error:
        endpoint(server, threads=1).ask([ask(seed=n) for n in range(50)])
    message = str(error.value)
    assert wrong in message and mend in message and server.url in message
    assert KEY not in message and "\n" not in message
    assert len(server.requests) < 10


def test_nobody_there():
    with serving(lambda request, n: written(GOOD)) as server:
        pass
    with pytest.raises(UserError, match="nobody answers.*OPENAI_BASE_URL"):
        one(server)


def test_an_address_with_a_password_is_shown_without_it():
    with serving(lambda request, n: refused(404, "nothing here")) as server, pytest.raises(UserError) as error:
        url = server.url.replace("http://", "http://me:password1@")
        Endpoint("m", base_url=url, api_key=KEY).ask([ask()])
    assert "password1" not in str(error.value) and "127.0.0.1" in str(error.value)


def test_where_comes_from_the_environment_and_arguments_override_it(monkeypatch):
    with pytest.raises(UserError, match="OPENAI_BASE_URL"):
        Endpoint("m")
    with pytest.raises(UserError, match="no address"):
        Endpoint("m", base_url="localhost:8000/v1")
    with serving(lambda request, n: written(GOOD)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert Endpoint("m").ask([ask()]) == [GOOD]  # a server of one's own wants no key
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        Endpoint("m").ask([ask()])
        Endpoint("m", api_key="other").ask([ask()])
    assert server.keys == ["Bearer none", f"Bearer {KEY}", "Bearer other"]


# ---- the cache ----


def test_what_was_answered_is_not_asked_again_by_anyone(tmp_path):
    with serving(lambda request, n: written(GOOD | {"score": n})) as server:
        first = endpoint(server, cache=tmp_path)
        assert first.ask([ask()]) == [GOOD | {"score": 0}]
        second = endpoint(server, cache=tmp_path)
        assert second.ask([ask()]) == [GOOD | {"score": 0}]
    assert len(server.requests) == 1 and second.counts == {"cached": 1}
    assert endpoint(server, cache=tmp_path).ask([ask()]) == [GOOD | {"score": 0}]  # with nobody there any more


def test_whatever_determines_the_answer_makes_another_question(tmp_path):
    other = IMAGE.copy()
    other[0, 0, 0] ^= 1
    questions = [
        (ask(), {}),
        (ask(seed=1), {}),
        (ask("what else?"), {}),
        (LlmRequest("You paint.", ask().parts, SCHEMA), {}),
        (LlmRequest("You caption images.", ("what is it?", other), SCHEMA), {}),
        (LlmRequest("You caption images.", ask().parts, obj(caption=text(), score=number(0, 11))), {}),
        (ask(), {"temperature": 0.1}),
        (ask(), {"max_tokens": 100}),
        (ask(), {"side": 16}),
        (ask(), {"jpeg": True}),
    ]
    with serving(lambda request, n: written(GOOD)) as server:
        for question, options in questions * 2:
            endpoint(server, cache=tmp_path, **options).ask([question])
        assert len(server.requests) == len(questions)
        Endpoint("another", base_url=server.url, cache=tmp_path).ask([ask()])
    assert len(server.requests) == len(questions) + 1


def test_failures_are_not_kept(tmp_path):
    with serving(lambda request, n: written("no" if n == 0 else GOOD)) as server:
        assert isinstance(one(server, cache=tmp_path, max_repairs=0), ItemError)
        assert one(server, cache=tmp_path, max_repairs=0) == GOOD


def test_a_broken_entry_is_asked_again_and_neither_key_nor_locks_stay(tmp_path):
    with serving(lambda request, n: written(GOOD)) as server:
        one(server, cache=tmp_path)
        (entry,) = (path for path in tmp_path.rglob("*") if path.is_file())
        assert KEY not in entry.read_text() and json.loads(entry.read_text())["answer"] == GOOD
        for broken in ("", "{", "[]", "{}"):
            entry.write_text(broken)
            assert one(server, cache=tmp_path) == GOOD
    assert len(server.requests) == 5
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [entry]


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with serving(lambda request, n: written(GOOD)) as server, pytest.raises(UserError, match="choose another folder"):
        one(server, cache=tmp_path / "file")


ELSEWHERE = """
import sys
from macro.judges.chat import LlmRequest
from macro.judges.endpoint import Endpoint

url, key, folder = sys.argv[1:]
schema = {schema!r}
chat = Endpoint("m", base_url=url, api_key=key, cache=folder, threads=4)
answers = chat.ask([LlmRequest("", ("?",), schema, seed=seed) for seed in range(8)])
assert answers == [{good!r}] * 8, answers
"""


def test_two_processes_ask_nothing_twice(tmp_path):
    code = ELSEWHERE.format(schema=SCHEMA, good=GOOD)
    with serving(lambda request, n: Reply(written(GOOD), delay=0.1)) as server:
        command = [sys.executable, "-c", code, server.url, KEY, str(tmp_path)]
        workers = [subprocess.Popen(command) for _ in range(2)]
        assert [worker.wait(60) for worker in workers] == [0, 0]
        assert sorted(request["seed"] for request in server.requests) == list(range(8))


def test_lists_are_held_against_their_length():
    wrong = {"boxes": [[0, 0, 1]]}
    schema = obj(boxes=array(array(number(0, 1), 4, 4), 0, 2))
    with serving(lambda request, n: written(wrong)) as server:
        (failure,) = endpoint(server, max_repairs=0).ask([LlmRequest("", ("?",), schema)])
    assert failure.reason.endswith("boxes[0] has 3 entries, not 4")

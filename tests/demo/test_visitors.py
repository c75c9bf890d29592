"""The served page against visitors who write their requests by hand."""

import http.client
import json
import logging
import secrets
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="Gradio is not installed (the extra 'demo')")

META = {"_type": "gradio.FileData"}
NOT_UPLOADED = "This picture was not uploaded here, or is here no longer: upload it again."


@pytest.fixture(scope="session")
def ask(address):
    """Send a request as it is written; give back status and body."""
    place = urlsplit(address)

    def ask(method, path, body=None, **headers):
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.putrequest(method, path, skip_host="Host" in headers)
        if body is not None:
            body = body.encode() if isinstance(body, str) else body
            headers["Content-Length"] = str(len(body))
        for key, value in headers.items():
            connection.putheader(key, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        if answer.headers.get_content_type() == "text/event-stream":
            text = ""
            while not ("process_completed" in text or "unexpected_error" in text):
                text += answer.readline().decode()
        else:
            text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, text

    return ask


@pytest.fixture(scope="session")
def events(ask):
    """The page's functions by what starts them: number and number of inputs."""
    config = json.loads(ask("GET", "/config")[1])
    labels = {one["id"]: one["props"].get("label") for one in config["components"]}
    found = {}
    for one in config["dependencies"]:
        target = labels.get(one["targets"][0][0])
        target = EXAMPLES if str(target).startswith(EXAMPLES) else target
        found.setdefault(target, (one["id"], len(one["inputs"])))
    return found


@pytest.fixture(scope="session")
def questions(ask, events):
    """Ask the model about a file entry, by the upload's and the webcam's function."""

    def question(label, entry):
        session = secrets.token_hex(8)
        number = events[label][0]
        body = {"session_hash": session, "fn_index": number, "data": [entry]}
        status, text = ask("POST", "/gradio_api/queue/join", body)
        if status != 200:
            return status, json.loads(text)["detail"]
        return ask("GET", f"/gradio_api/queue/data?session_hash={session}")

    return question


EXAMPLES = "Examples"
SOURCES = ["A picture of one hand", "Hold one hand into the picture and take it"]


def multipart(content, name="a.png"):
    boundary = "x" * 20
    disposition = f'form-data; name="files"; filename="{name}"'
    body = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    body += content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content_Type": f"multipart/form-data; boundary={boundary}"}


@pytest.fixture(scope="session")
def uploaded(ask, examples):
    body, headers = multipart(examples[0].read_bytes())
    status, text = ask("POST", "/gradio_api/upload", body, **headers)
    assert status == 200
    return json.loads(text)[0]


@pytest.mark.parametrize("label", SOURCES)
@pytest.mark.parametrize("extra", [{}, {"meta": META}, {"meta": {"_type": "other"}}])
def test_what_was_uploaded_is_read(questions, uploaded, label, extra):
    status, text = questions(label, {"path": uploaded, **extra})
    assert status == 200
    assert "Said:" in text


@pytest.fixture(scope="session")
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "secret.png"
    Image.new("RGB", (28, 28), "red").save(path)
    return path


def entries(secret, uploaded, folder):
    """What a stranger may write where the page puts an upload."""
    inside = folder / "uploads"
    paths = {
        "a picture": secret,
        "a folder": secret.parent,
        "no file": secret.parent / "none.png",
        "an example's original": folder / "A.png",
        "the lock": folder / "lock",
        "out of the folder": f"{inside}/../../../{secret}",
        "the uploads themselves": inside,
        "an upload's folder": uploaded.rpartition("/")[0],
        "a missing upload": f"{uploaded}x",
        "a file below an upload": f"{uploaded}/x",
        "a relative path": "../../../etc/hostname",
        "the current folder": ".",
        "no path": "",
        "a null": "a\0b",
        "a long name": "/" + "a" * 5000,
        "a process": "/proc/self/environ",
        "a device": "/dev/zero",
        "a web address": "http://127.0.0.1:9/a.png",
        "a file address": f"file://{secret}",
    }
    for name, path in paths.items():
        yield name, {"path": str(path)}
    for name, meta in {"meta": META, "other": {"_type": "x"}, "text": "x", "none": None}.items():
        yield f"meta {name}", {"path": str(secret), "meta": meta}
    yield "a stream", {"path": str(secret), "meta": META, "is_stream": True}
    yield "an address", {"path": str(secret), "meta": META, "url": f"/file={uploaded}"}
    yield from [("text", str(secret)), ("list", [str(secret)]), ("number", 5), ("true", True)]
    yield "a number's path", {"path": 5}
    yield "a nested path", {"path": {"path": str(secret), "meta": META}}
    yield "a nested entry", {"image": {"path": str(secret), "meta": META}}
    yield "base64", {"url": "data:image/png;base64,iVBORw0KGgo="}
    yield "nothing", {}


@pytest.mark.parametrize("label", SOURCES)
def test_nothing_else_is_read_and_nothing_told_of_it(questions, demo_page, uploaded, secret, label):
    told = {
        name: questions(label, entry) for name, entry in entries(secret, uploaded, demo_page[1])
    }
    assert told == dict.fromkeys(told, (422, NOT_UPLOADED))


def test_the_queue_cannot_be_passed_by(ask, events, uploaded):
    body = {"session_hash": "past", "fn_index": events[SOURCES[0]][0], "data": [{"path": uploaded}]}
    assert ask("POST", "/gradio_api/run/predict", body)[0] == 404


def test_a_link_in_the_uploads_is_not_followed_out_of_them(questions, demo_page, secret):
    link = demo_page[1] / "uploads" / "link.png"
    link.symlink_to(secret)
    assert questions(SOURCES[0], {"path": str(link), "meta": META}) == (422, NOT_UPLOADED)
    link.unlink()


def test_also_past_the_guard_only_uploads_are_opened(demo_page, uploaded, secret):
    """The functions themselves, as another way to them would call them."""
    page = demo_page[3]
    reads = [one for one in page.fns.values() if (one.name or "").startswith("read")]
    assert len(reads) == 2
    for event in reads:
        assert not event.preprocess
        assert "Said:" in event.fn({"path": uploaded})[1]
        for path in (str(secret), str(secret.parent), "/none.png", None):
            assert NOT_UPLOADED in event.fn({"path": path})[1]


def test_choosing_an_example_opens_no_other_way(ask, events, secret):
    """Gradio makes the session's picture anew then, without what was changed on ours."""
    session = {"session_hash": "anew"}
    chosen = {**session, "fn_index": events[EXAMPLES][0], "data": [3]}
    assert ask("POST", "/gradio_api/run/predict", chosen)[0] == 200
    question = {**session, "fn_index": events[SOURCES[0]][0], "data": [{"path": str(secret)}]}
    assert ask("POST", "/gradio_api/queue/join", question)[0] == 422


PATHS = [
    "/etc/passwd",
    "//etc/passwd",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc/passwd",
    "/proc/self/environ",
    "file:///etc/passwd",
    "http://127.0.0.1:9/",
    "http://example.com/",
    "a%00b",
    "/" + "a" * 5000,
    ".",
    "",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_file_of_the_machine_is_given_out(ask, path):
    assert ask("GET", f"/gradio_api/file={path}") == (404, "The demo has no such page.")


def test_only_what_was_uploaded_is_given_out(ask, demo_page, uploaded, secret):
    assert ask("GET", f"/gradio_api/file={uploaded}")[0] == 200
    folder = demo_page[1]
    for path in (secret, secret.parent, folder / "lock", folder / "A.png", f"{uploaded}x"):
        assert ask("GET", f"/gradio_api/file={quote(str(path))}")[0] == 404
    for under in ("static", "assets", "svelte"):
        for path in ("../../../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd"):
            assert ask("GET", f"/{under}/{path}")[0] in (403, 404)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "run/read", {"data": []}),
        ("POST", "api/read", {"data": []}),
        ("POST", "call/read", {"data": []}),
        ("POST", "call/v2/read", {"data": []}),
        ("GET", "call/read/1", None),
        ("POST", "component_server", {"data": 1, "component_id": 1, "fn_name": "ls"}),
        ("POST", "process_recording", {}),
        ("POST", "stream/1", {"data": []}),
        ("GET", "stream/1/1/1/playlist-file", None),
        ("GET", "proxy=http://example.com/", None),
        ("GET", "custom_component/x/client/component/index.js", None),
        ("GET", "deep_link?session_hash=x", None),
        ("GET", "dev/reload", None),
        ("GET", "runs", None),
        ("GET", "openapi.json", None),
        ("GET", "mcp/", None),
        ("POST", "mcp/", {}),
        ("POST", "vibe-edit", {"prompt": "x"}),
        ("GET", "vibe-code", None),
        ("GET", "file/etc/passwd", None),
        ("PUT", "upload", {}),
        ("DELETE", "queue/join", None),
    ],
)
def test_what_the_page_does_not_need_is_not_there(ask, method, path, body):
    assert ask(method, f"/gradio_api/{path}", body) == (404, "The demo has no such page.")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "a b"],
)
def test_another_name_is_not_answered(ask, host):
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/upload")):
        status, text = ask(method, path, Host=host)
        assert status == 400
        assert "SignBridge" not in text


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "[::1]:7860"])
def test_the_names_of_this_machine_are_answered(ask, host):
    """Also with another port, as through a tunnel."""
    assert ask("GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://localhost:1", "http://127.0.0.1", "file://"],
)
def test_another_page_is_not_answered(ask, examples, origin):
    body, headers = multipart(examples[0].read_bytes())
    assert ask("POST", "/gradio_api/upload", body, Origin=origin, **headers)[0] == 403
    assert ask("POST", "/gradio_api/queue/join", {}, Origin=origin)[0] == 403
    assert ask("GET", "/config", Origin=origin)[0] == 403
    assert ask("OPTIONS", "/gradio_api/upload", Origin=origin)[0] == 403


def test_the_page_itself_may_post(ask, address, examples):
    body, headers = multipart(examples[1].read_bytes())
    own = address.rstrip("/")
    assert ask("POST", "/gradio_api/upload", body, Origin=own, **headers)[0] == 200
    there = {"Host": "localhost:9999", "Origin": "http://localhost:9999"}
    assert ask("POST", "/gradio_api/upload", body, **there, **headers)[0] == 200


def wrong(events):
    """Questions that the page does not ask."""
    number, _ = events[SOURCES[0]]
    layer, _ = events["Layer"]
    session = {"session_hash": "wrong"}
    yield from (
        "{",
        "",
        "null",
        "[]",
        "5",
        '"text"',
        "[" * 100_000,
        "\udc80".encode("utf-8", "replace"),
    )
    yield from (b"\xff\xfe", {}, session, {**session, "fn_index": number})
    for index in (float("nan"), 10**400, 99, -1, "1", 1.5, None, True, [number], {}):
        yield {**session, "fn_index": index, "data": [None]}
    for data in (None, "x", {}, [], [None, None], [None] * 1000):
        yield {**session, "fn_index": number, "data": data}
    for chosen in (99, -1, "1", None, True, [], {"value": 1}, 1.0):
        yield {**session, "fn_index": layer, "data": [None, chosen]}
    yield {"fn_index": number, "data": [None]}
    yield {"session_hash": 5, "fn_index": number, "data": [None]}


def test_a_wrong_question_is_refused_without_a_word_in_the_terminal(ask, events, capfd, caplog):
    for path in ("queue/join", "run/predict"):
        for body in wrong(events):
            kind = {"Content_Type": "application/json"}
            status, text = ask("POST", f"/gradio_api/{path}", body, **kind)
            assert (status, set(json.loads(text))) == (422, {"detail"})
    ask("GET", "/gradio_api/queue/data?session_hash=nobody")
    for path in ("cancel", "reset"):
        for body in ("{", "[]", '{"session_hash": NaN}', {"session_hash": [], "fn_index": "x"}):
            status, _ = ask("POST", f"/gradio_api/{path}", body, Content_Type="application/json")
            assert status == 422
    ask("POST", "/gradio_api/cancel", {"session_hash": "a", "fn_index": 1, "event_id": "b"})
    ask("POST", "/gradio_api/upload", "x", Content_Type="multipart/form-data")
    ask("POST", "/gradio_api/upload", "x", Content_Type="multipart/form-data; boundary=y")
    ask("POST", "/login", "x")
    ask("GET", "/?deep_link=../x")
    ask("GET", "/pwa_icon/99")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not [one for one in caplog.records if one.exc_info or one.levelno > logging.WARNING]


def test_what_is_added_to_a_question_changes_nothing(ask, events, uploaded):
    body = {
        "session_hash": "added",
        "fn_index": events[SOURCES[0]][0],
        "data": [{"path": uploaded, "meta": META, "is_stream": True, "url": "http://x/"}],
        "batched": True,
        "simple_format": True,
        "event_id": "x",
        "event_data": {"path": "/etc/passwd"},
        "trigger_id": "x",
    }
    assert ask("POST", "/gradio_api/queue/join", body)[0] == 200
    assert "Said:" in ask("GET", "/gradio_api/queue/data?session_hash=added")[1]


def test_a_question_is_bounded(ask):
    assert ask("POST", "/gradio_api/queue/join", " " * (1 << 19))[0] == 413


def test_an_upload_is_bounded(ask):
    body, headers = multipart(b"0" * (21 * 2**20))
    assert ask("POST", "/gradio_api/upload", body, **headers)[0] == 413


@pytest.mark.parametrize("name", ["../../up.png", "/etc/x.png", "a/../../b.png", "..", "CON", "-"])
def test_an_upload_lands_in_the_folder_whatever_its_name(ask, demo_page, examples, name):
    body, headers = multipart(examples[2].read_bytes(), name)
    status, text = ask("POST", "/gradio_api/upload", body, **headers)
    assert status == 400 or json.loads(text)[0].startswith(f"{demo_page[1]}/uploads/")


def test_the_page_may_load_from_nowhere_else(address):
    from urllib.request import urlopen

    with urlopen(address) as response:
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]

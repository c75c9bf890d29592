"""What stands before Gradio: who is answered, which addresses there are, what a request may say.

Gradio's own addresses serve many kinds of pages. This page needs few of them, so those are listed
and all others do not exist.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signbridge.demo.access import Names
from signbridge.demo.uploads import own_upload
from signbridge.errors import first_line
from signbridge.runtime.terminal import visible

POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' ws: wss:"
# Of Gradio's interface: what its script in the browser asks for on this page.
_READ = re.compile(
    r"/gradio_api/(info|user|login_check|app_id|startup-events|theme\.css|upload_progress"
    r"|heartbeat/[^/]+|queue/data|queue/status)/?"
)
_FILE = "/gradio_api/file="
_POSTED = re.compile(r"/(login|gradio_api/(upload|queue/join|run/predict|cancel|reset))/?")
# To the model, by the queue, and for an example, past it.
_QUESTIONS = ("/gradio_api/queue/join", "/gradio_api/run/predict")
_REST = ("/gradio_api/cancel", "/gradio_api/reset")  # which Gradio itself judges, if it is JSON
_LONGEST_QUESTION = 1 << 18

log = logging.getLogger(__name__)


class WrongQuestion(ValueError):  # noqa: N818  (the visitor's fault)
    """A question that the page cannot have asked, as a sentence for who asked it."""


class Guard:
    """ASGI middleware around the whole of Gradio.

    - Answered is who asks for a name of the page, from the page itself or with no ``Origin``: a
      browser gives one whenever another page posts; curl and gradio_client give none.
    - There is nothing but what the page needs.
    - A question to the model is passed on only if ``check`` has understood it.
    - The page may load nothing from anywhere else, so it cannot tell anyone.
    - What fails is one line in the terminal.

    Args:
        app: Gradio.
        names: what the page is served under.
        uploads: where what was uploaded lies; no other file is given out.
        check: makes of the JSON of a question what Gradio gets; raises
            :class:`WrongQuestion`.
    """

    def __init__(
        self, app: ASGIApp, names: Names, uploads: Path, check: Callable[[Any], Any]
    ) -> None:
        self.app, self.names, self.uploads, self.check = app, names, uploads, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def send_with_policy(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None and scope["path"].rstrip("/") in _QUESTIONS:
                receive, refusal = await _understood(scope, receive, self.check)
            elif refusal is None and scope["path"].rstrip("/") in _REST:
                receive, refusal = await _understood(scope, receive, lambda asked: asked)
            await (refusal or self.app)(scope, receive, send_with_policy)
        except Exception as error:
            _tell(scope, error)
            if begun:
                await send({"type": "http.response.body", "body": b""})
            else:
                failed = PlainTextResponse("This request could not be answered.", 500)
                await failed(scope, receive, send_with_policy)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.names.has_host(host):
            text = "The demo has another name: open it at the address that it gave when it started."
            return PlainTextResponse(text, 400)
        if origin is not None and not self.names.has_origin(origin, host):
            return PlainTextResponse("The demo takes requests from its own page alone.", 403)
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") and path.startswith(_FILE):
            there: object = own_upload(path.removeprefix(_FILE), self.uploads)
        elif method in ("GET", "HEAD"):
            there = not path.startswith("/gradio_api") or _READ.fullmatch(path)
        else:
            there = method == "POST" and _POSTED.fullmatch(path)
        return None if there else PlainTextResponse("The demo has no such page.", 404)


def _tell(scope: Scope, error: Exception) -> None:
    """Tell the terminal's owner in a line, but not of what the visitor was told already."""
    if not isinstance(error.__cause__, HTTPException):
        asked = f"{scope['method']} {scope['path']}"[:200]
        what = f"{type(error).__name__}: {first_line(error)}"
        log.warning("%s could not be answered (%s)", visible(asked), visible(what))


async def _understood(
    scope: Scope, receive: Receive, check: Callable[[Any], Any]
) -> tuple[Receive, Response | None]:
    """Read the JSON of a request, judge it, and give it out again as it was understood."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return receive, PlainTextResponse("", 400)  # the visitor has left
        body += message.get("body", b"")
        if len(body) > _LONGEST_QUESTION:
            return receive, PlainTextResponse("This question is too long.", 413)
        if not message.get("more_body"):
            break
    try:
        question = json.dumps(check(json.loads(body)), allow_nan=False).encode()
    except WrongQuestion as error:
        return receive, JSONResponse({"detail": str(error)}, 422)
    except (ValueError, RecursionError):  # no JSON, or nested beyond reading
        return receive, JSONResponse({"detail": "This is no question of the page."}, 422)
    own = (b"content-length", b"content-type")
    scope["headers"] = [
        *(pair for pair in scope["headers"] if pair[0] not in own),
        (b"content-length", str(len(question)).encode()),
        (b"content-type", b"application/json"),
    ]
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": question, "more_body": False}

    return again, None

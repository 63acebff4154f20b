"""A browser without a screen: follows redirects, keeps the cookie, sends forms as they stand in the page."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urlsplit


@dataclass
class Form:
    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.codes: list[str] = []
        self.text: list[str] = []
        self._href = ""
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._tag = tag
        if tag == "form":
            self.forms.append(Form(given.get("method", "get"), given["action"]))
        elif tag == "input" and (given.get("type") != "radio" or "checked" in given):
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "a":
            self._href = given["href"]

    def handle_data(self, data: str) -> None:
        if self._tag in ("style", "script"):
            return
        self.text.append(data)
        if self._href:
            self.links.setdefault(data, self._href)
        if self._tag == "code":
            self.codes.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""
        if tag == "a":
            self._href = ""


class Seen:
    """A screen."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        reader = _Reader()
        reader.feed(body)
        self.forms = {each.action: each for each in reader.forms}
        self.links = reader.links
        self.codes = reader.codes
        """What stands beside a QR: address, name, code."""
        self.text = " ".join(" ".join(reader.text).split())


class Browser:
    def __init__(self, url: str, trust: Path) -> None:
        """``url``: any of the server's; ``trust``: PEM anchors."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self.address = parts.netloc
        self._tls = ssl.create_default_context(cafile=trust)
        self.cookie = ""
        self.set_cookie = ""

    def request(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Seen:
        """One request, no redirect followed."""
        connection = http.client.HTTPSConnection(self._host, self._port or 443, timeout=30, context=self._tls)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            sent["Cookie"] = self.cookie
        if body is not None:
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if given := answer.headers.get("Set-Cookie"):
            self.set_cookie = given
            self.cookie = given.partition(";")[0]
        return Seen(answer.status, {name.lower(): value for name, value in answer.headers.items()}, text)

    def get(self, path: str) -> Seen:
        parts = urlsplit(path)
        return self.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))

    def submit(self, form: Form, **changed: str) -> Seen:
        """Fill in and send; what comes after the redirect."""
        text = urlencode(form.fields | changed)
        if form.method == "get":
            return self.get(f"{form.action}?{text}")
        seen = self.request("POST", form.action, text)
        return self.get(seen.headers["location"]) if seen.status == 303 else seen

    def open(self, link: str) -> Seen:
        """Follow a one-time link and press its button."""
        return self.submit(self.get(link).forms["/open"])

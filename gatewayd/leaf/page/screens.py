"""What the technician sees. Pure: data as docs/json.md has it in, HTML out.

Every screen works without JavaScript; on the one that shows steps a few lines of it replace the reload.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

import segno

from ...core.model import RevocationReason
from .markup import NOTHING, Html, fill, join
from .steps import Mark, Phase, Shown, phase, steps

Data = dict[str, Any]

MOST_DEVICES: Final = 50
RELOAD_SECONDS: Final = 5
"""Where there is no JavaScript."""

REASONS: Final = {
    RevocationReason.SUPERSEDED: "It is broken or worn out, or we are putting in a better one",
    RevocationReason.KEY_COMPROMISE: "It was stolen or lost, or somebody may have tampered with it",
}
_STATES: Final = {
    "new": "Has never signed on",
    "enrolling": "Is signing on for the first time",
    "active": "In service",
    "expired": "Its certificate has expired",
    "replacing": "Hardware is being replaced",
    "revoked": "Locked out",
}
_NOW: Final = {
    Phase.SCAN: ("Start the new hardware and let it scan this code", ""),
    Phase.WAIT: ("Wait a moment", "The gateway has heard the new hardware, and is letting it in."),
    Phase.FINISHED: ("Done. The new hardware is in service.", "There is nothing left to do here."),
    Phase.GIVEN_UP: ("Given up", "The device stays locked out until its hardware is replaced."),
}
_SIGNS: Final = {Mark.DONE: "✓", Mark.WORKING: "…", Mark.TROUBLE: "!"}
"""Of a step that is to come: its number."""
_MARKS: Final = {Mark.DONE: "Done", Mark.WORKING: "Under way", Mark.TROUBLE: "Not yet", Mark.NEXT: "To come"}


@dataclass(frozen=True, slots=True)
class Frame:
    """What every screen has around it."""

    gateway_id: str
    nonce: str
    """Of the one style and the one script that the Content-Security-Policy lets through."""
    form_token: str = ""
    """Goes with every form; "" where there is no session."""

    def page(self, title: str, body: Html, *, head: Html = NOTHING, script: Html = NOTHING, menu: bool = True) -> Html:
        link = Html('<nav aria-label="Main"><a class="button" href="/">All devices</a></nav>') if menu else ""
        return fill(
            "<!DOCTYPE html>\n"
            '<html lang="en"><head><meta charset="utf-8"><title>$title</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="robots" content="noindex"><link rel="icon" href="data:,">$head'
            '<style nonce="$nonce">$style</style></head>'
            '<body><a class="skip" href="#main">Skip to content</a><header><p>$gateway_id</p>$link</header>'
            '<main id="main">$body</main>$script</body></html>\n',
            title=f"{title} · {self.gateway_id}",
            head=head,
            nonce=self.nonce,
            style=_file("style.css"),
            gateway_id=self.gateway_id,
            link=link,
            body=body,
            script=script,
        )


def welcome(frame: Frame, link: str) -> Html:
    """Behind the one-time link. The link is used up by the button and not by opening it, since messengers open links
    to show a preview."""
    body = fill(
        "<h1>Swap the hardware of a device</h1>"
        "<p>This link works once, and on this phone only.</p>"
        '<form method="post" action="/open"><input type="hidden" name="link" value="$link">'
        '<button class="main">Start</button></form>',
        link=link,
    )
    return frame.page("Welcome", body, menu=False)


def message(frame: Frame, title: str, text: str, remedy: str = "", *, menu: bool = True) -> Html:
    body = fill(
        '<h1>$title</h1><div class="now trouble" role="alert"><p>$text</p>$remedy</div>',
        title=title,
        text=text,
        remedy=fill("<p>$remedy</p>", remedy=remedy) if remedy else "",
    )
    if menu:
        body = Html(body + '<a class="button" href="/">Go to the devices</a>')
    return frame.page(title, body, menu=False)


def devices(frame: Frame, items: Iterable[Data], search: str) -> Html:
    """Those under way first; ``search`` is a part of the id."""
    wanted = search.strip().casefold()
    found = [each for each in items if wanted in each["device_id"].casefold()]
    found.sort(key=lambda each: (each["state"] != "replacing", each["device_id"]))
    shown = [
        fill(
            '<li><a href="$href"><strong>$id</strong>$state</a></li>',
            href=_device(each["device_id"]),
            id=each["device_id"],
            state=_STATES[each["state"]],
        )
        for each in found[:MOST_DEVICES]
    ]
    if not found:
        count = f"No device has “{search.strip()}” in its name." if wanted else "No device is known here yet."
    elif len(found) > MOST_DEVICES:
        count = f"The first {MOST_DEVICES} of {len(found)} devices. Type a part of the name above to find the others."
    else:
        count = "1 device" if len(found) == 1 else f"{len(found)} devices"
    body = fill(
        "<h1>Which device?</h1>"
        '<form role="search" action="/"><label for="search">A part of its name</label>'
        '<div class="search"><input type="search" id="search" name="search" value="$search" maxlength="64" '
        'autocapitalize="none" autocomplete="off" spellcheck="false" enterkeyhint="search">'
        "<button>Find</button></div></form>"
        '<p role="status">$count</p><ul class="devices">$shown</ul>',
        search=search,
        count=count,
        shown=join(shown),
    )
    return frame.page("Devices", body, menu=False)


def device(frame: Frame, shown: Data, code: Data | None) -> Html:
    """``shown``: ``device show``. ``code``: what ``device replace`` answered, while its code is good."""
    device_id = shown["device"]["device_id"]
    stage = phase(shown)
    under_way = stage in (Phase.SCAN, Phase.WAIT)
    if stage is None or (stage is Phase.GIVEN_UP) or (stage is Phase.FINISHED and shown["device"]["state"] != "active"):
        lead = _state(shown["device"], stage)
    else:
        lead = _now(stage, steps(shown))
    listed = steps(shown) if stage in (Phase.SCAN, Phase.WAIT, Phase.FINISHED) else []
    body = fill(
        '<h1>$id</h1><p id="offline" class="now trouble" role="alert" hidden>The gateway does not answer. Check that '
        "this phone is in its network.</p>"
        '<div id="now" role="status">$lead</div><div id="qr">$qr</div>'
        '<div id="steps">$steps</div><div id="rest">$rest</div>',
        id=device_id,
        lead=lead,
        qr=_qr(frame, device_id, code, shown.get("code_expires_at")) if stage is Phase.SCAN else "",
        steps=_steps(listed) if listed else "",
        rest=_rest(device_id, stage),
    )
    if not under_way:
        return frame.page(device_id, body)
    reload = fill('<noscript><meta http-equiv="refresh" content="$seconds"></noscript>', seconds=RELOAD_SECONDS)
    script = fill('<script nonce="$nonce">$script</script>', nonce=frame.nonce, script=_file("watch.js"))
    return frame.page(device_id, body, head=reload, script=script)


def ask_replace(frame: Frame, device_id: str) -> Html:
    choices = [
        fill(
            '<label class="choice"><input type="radio" name="reason" value="$value"$checked>'
            "<span>$words</span></label>",
            value=reason,
            checked=Html(" checked") if reason is RevocationReason.SUPERSEDED else "",
            words=words,
        )
        for reason, words in REASONS.items()
    ]
    body = fill(
        "<h1>Replace the hardware of $id?</h1>"
        "<p>The old hardware is locked out <strong>for good</strong>, here and in the cloud.</p>"
        '<form method="post" action="/replace">$hidden'
        "<fieldset><legend>What is the matter with the old one?</legend>$choices</fieldset>"
        '<button class="main">Lock the old one out and start</button></form>'
        '<a class="button" href="$back">No, go back</a>',
        id=device_id,
        hidden=_hidden(frame, device_id),
        choices=join(choices),
        back=_device(device_id),
    )
    return frame.page(f"Replace {device_id}", body)


def ask_cancel(frame: Frame, device_id: str) -> Html:
    body = fill(
        "<h1>Give up the replacement of $id?</h1>"
        "<p>The code for the new hardware stops working. The old hardware <strong>stays locked out</strong>: "
        "the device is out of service until its hardware is replaced.</p>"
        '<form method="post" action="/cancel">$hidden<button class="danger">Give up</button></form>'
        '<a class="button" href="$back">No, go on</a>',
        id=device_id,
        hidden=_hidden(frame, device_id),
        back=_device(device_id),
    )
    return frame.page(f"Give up {device_id}", body)


def _state(item: Data, stage: Phase | None) -> Html:
    words = _NOW[Phase.GIVEN_UP][1] if stage is Phase.GIVEN_UP and item["state"] == "revoked" else ""
    return fill(
        '<div class="now $kind"><p><strong>$state</strong></p>$words</div>',
        kind="finished" if item["state"] == "active" else "",
        state=_STATES[item["state"]],
        words=fill("<p>$words</p>", words=words) if words else "",
    )


def _now(stage: Phase, listed: list[Shown]) -> Html:
    title, text = _NOW[stage]
    done = sum(each.mark is Mark.DONE for each in listed)
    troubled = next((each for each in listed if each.mark is Mark.TROUBLE), None)
    return fill(
        '<div class="now $kind"><p><strong>$title</strong></p>$text'
        '<p class="dots" aria-hidden="true">$dots</p><p class="hidden">$done</p></div>$trouble',
        kind=stage,
        title=title,
        text=fill("<p>$text</p>", text=text) if text else "",
        dots=join(_sign(each, number) for number, each in enumerate(listed, start=1)),
        done=f"{done} of {len(listed)} steps done.",
        trouble=fill(
            '<div class="now trouble"><p><strong>Not yet: $words</strong></p><p>$why</p></div>',
            words=troubled.words,
            why=troubled.trouble,
        )
        if troubled
        else "",
    )


def _sign(step: Shown, number: int) -> Html:
    return fill('<span class="sign $mark">$sign</span>', mark=step.mark, sign=_SIGNS.get(step.mark, number))


def _steps(listed: list[Shown]) -> Html:
    items = [
        fill(
            '<li class="$mark"><span aria-hidden="true">$sign</span><span>$words<small>$state</small></span></li>',
            mark=each.mark,
            sign=_sign(each, number),
            words=each.words,
            state=_MARKS[each.mark],
        )
        for number, each in enumerate(listed, start=1)
    ]
    return fill('<h2>Steps</h2><ol class="steps">$items</ol>', items=join(items))


def _qr(frame: Frame, device_id: str, code: Data | None, open_until: str | None) -> Html:
    again = fill(
        '<form method="post" action="/replace">$hidden<button class="$kind">Show a new code</button></form>',
        hidden=_hidden(frame, device_id),
        kind="" if code else "main",
    )
    if code is None or code["expires_at"] != open_until:  # there is none, or a later one was made elsewhere
        return fill(
            "<p>The code is shown only on the phone that made it, and only while it is good.</p>$again", again=again
        )
    if "enroll_url" not in code:
        return Html(
            "<p>The gateway cannot sign new hardware on at this moment. Wait, then show a new code.</p>" + again
        )
    drawn = segno.make_qr(code["enroll_url"], error="m").svg_inline(
        border=4, omitsize=True, light="#fff", svgclass=None, lineclass=None
    )
    return fill(
        '<div class="qr" role="img" aria-label="QR code for the new hardware of $id">$drawn</div>'
        "<details><summary>Does it not scan?</summary><p>Make the screen brighter, and wipe it dry. "
        "Hardware without a camera takes these three:</p>"
        "<p>Address<br><code>$url</code></p><p>Name<br><code>$id</code></p><p>Code<br><code>$code</code></p>"
        "<p>With a new code, this one stops working.</p>$again</details>",
        id=device_id,
        drawn=Html(drawn),
        url=code["est_url"],
        code=code["code"],
        again=again,
    )


def _rest(device_id: str, stage: Phase | None) -> Html:
    """What else can be done."""
    query = f"?id={quote(device_id, safe='')}"
    if stage in (Phase.SCAN, Phase.WAIT):
        return fill('<a class="button" href="$href">Give up</a>', href=f"/cancel{query}")
    return fill(
        '<a class="button $kind" href="$href">Replace its hardware</a>',
        kind="" if stage is Phase.FINISHED else "main",
        href=f"/replace{query}",
    )


def _hidden(frame: Frame, device_id: str) -> Html:
    return fill(
        '<input type="hidden" name="token" value="$token"><input type="hidden" name="id" value="$id">',
        token=frame.form_token,
        id=device_id,
    )


def _device(device_id: str) -> str:
    return f"/device?id={quote(device_id, safe='')}"


@cache
def _file(name: str) -> Html:
    return Html((files(__package__) / name).read_text(encoding="utf-8"))

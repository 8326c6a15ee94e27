"""What is wrong with an application, told so that whoever reads it knows where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from control_plane.testing.questions import Question

EXCERPT = 400  # characters of an answer that are shown

LEAK = (
    "A cache whose key lacks the tenant, a query on a connection of the application's own, a session that outlived its "
    "request? Read through the request's TenantSession only, and put the tenant's id into every key."
)
ORACLE = (
    "Whoever can tell another tenant's id from one that never was learns that it exists. Look rows up through the "
    "TenantSession, where those of others are not, and answer 404 for both."
)
CHANGED = "A tenant changed rows of another one. Write through the request's TenantSession only."
ALLOWED = (
    "A tenant named a row of another one and was not refused. Look it up first, and answer 404 when it is not there."
)
NOT_BOUND = (
    "The session worked for somebody else than the token names. Ask for a TenantSession, and make none yourself."
)
LEFT = (
    "What one request leaves in a database session reached the next. Is there a pooler between that shares sessions, "
    "or an engine of the application's own?"
)
LOST = "After one request the next ones went wrong: something of it was kept, or a connection was never given back."
UNBOUND = (
    "Whoever calls it is nobody. Ask for a TenantSession, a TenantConnection or the CurrentPrincipal, or name the path "
    "in `public` when it shows nothing of any tenant."
)
STRAY = (
    "A name that fits no route leaves nothing out. Write it as in `public = {'/healthz'}`, `exempt = {'GET /events'}`."
)
EMPTY = "A test that sees nothing proves nothing."


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `what`, with the request and the answer that show it, and `why` it matters."""

    what: str
    why: str
    asked: str = ""
    answered: str = ""

    def __str__(self) -> str:
        parts = {"asked": self.asked, "answered": self.answered, "why": self.why}
        return "\n".join([self.what, *(f"    {name:<9} {text}" for name, text in parts.items() if text)])


def finding(what: str, why: str, who: object, question: Question, answer: httpx.Response) -> Finding:
    return Finding(what, why, f"as {who}: {question}", shown(answer))


def shown(answer: httpx.Response) -> str:
    """Status and body, cut to what one can read."""
    body = answer.text if len(answer.text) <= EXCERPT else f"{answer.text[:EXCERPT]}… ({len(answer.text)} characters)"
    return f"{answer.status_code} {body}"


def leaked(answer: httpx.Response, secrets: Mapping[str, str], words: str = "") -> list[str]:
    """Which `secrets` an answer tells and where, leaving out what the request said itself (`words`)."""
    places = {
        "the body": answer.text.casefold(),
        "the headers": " ".join(f"{name}: {value}" for name, value in answer.headers.items()).casefold(),
    }
    return [
        f"{what} ({secret}) in {place}"
        for secret, what in secrets.items()
        if secret.casefold() not in words.casefold()
        for place, text in places.items()
        if secret.casefold() in text
    ]


def report(findings: Sequence[Finding]) -> str:
    """All findings as one text, each once."""
    return "\n\n".join(dict.fromkeys(map(str, findings)))

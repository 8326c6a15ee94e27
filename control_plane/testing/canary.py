"""What one tenant can learn of another, or change of it, through the routes of an application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx

from control_plane.testing import findings as why
from control_plane.testing.application import Tenancy, Tenant
from control_plane.testing.findings import Finding, finding, leaked, shown
from control_plane.testing.questions import Filled, Missing, Question, unknown
from control_plane.testing.routes import Route

REFUSED = (403, 404)


def missing(error: Missing) -> Finding:
    names = " and ".join(error.names)
    return Finding(
        f"{error.route} was not asked: fill() returns no value for {names}.",
        f"{why.EMPTY} Return it, or name the route in `exempt`.",
    )


def unanswered(
    route: Route, tenant: Tenant, asked: Sequence[Question], answers: Sequence[httpx.Response]
) -> list[Finding]:
    """A finding unless `tenant` was answered at least once: its refusal would look like that of anybody else."""
    if any(answer.status_code < 400 for answer in answers):
        return []
    hint = "Return from fill() what the route needs, say in `bodies` what it is sent, or name it in `exempt`."
    what = f"{route} refuses the tenant whose rows it is asked for ({tenant.isolation})."
    return [finding(what, f"{why.EMPTY} {hint}", tenant, asked[0], answers[0])]


def leaks(
    owner: Tenant, reader: Tenant, question: Question, answer: httpx.Response, secrets: Mapping[str, str]
) -> list[Finding]:
    """One finding when the answer to `reader` tells something of `owner`."""
    told = leaked(answer, secrets, question.words)
    if not told:
        return []
    what = f"{question.route} shows {reader} what belongs to {owner} ({owner.isolation}): {'; '.join(told)}."
    return [finding(what, why.LEAK, reader, question, answer)]


def tells_apart(owner: Tenant, reader: Tenant, question: Question, foreign: Mapping[str, str]) -> list[Finding]:
    """One finding when `reader` is answered otherwise about a row of `owner` than about one that never was."""
    made_up = unknown(question, foreign)
    answer, plain = question.ask(reader.client), made_up.ask(reader.client)
    if _essence(question, answer) == _essence(made_up, plain):
        return []
    if answer.status_code == plain.status_code:
        another = unknown(question, foreign)
        if _essence(another, another.ask(reader.client)) != _essence(made_up, plain):
            return []  # each answer differs from the one before, whatever is asked for
    what = f"{question.route} tells {reader} that a row of {owner} exists ({owner.isolation})."
    difference = f"{shown(answer)}\n              and about an unknown one: {shown(plain)}"
    return [Finding(what, why.ORACLE, f"as {reader}: {question}", difference)]


def attack(
    tenancy: Tenancy, owner: Tenant, writer: Tenant, asked: Sequence[Question], rows: Filled, other: Filled
) -> list[Finding]:
    """Findings on what `writer` may do with rows of `owner`; in the end `owner` does it, which must be possible."""
    found: list[Finding] = []
    foreign, secrets = rows.foreign(other), rows.secrets(other)
    before = tenancy.rows(owner)
    for question in asked:
        answer = question.ask(writer.client)
        after = tenancy.rows(owner)
        if changed := [table for table, digest in after.items() if digest != before[table]]:
            what = f"{question.route} let {writer} change {', '.join(changed)} of {owner} ({owner.isolation})."
            found.append(finding(what, why.CHANGED, writer, question, answer))
        before = after
        found += leaks(owner, writer, question, answer, secrets)
        if answer.status_code < 400:
            what = f"{question.route} accepts from {writer} a row of {owner} ({owner.isolation})."
            found.append(finding(what, why.ALLOWED, writer, question, answer))
        elif not foreign.keys().isdisjoint(question.values.values()):  # else the body alone names it
            if answer.status_code not in REFUSED:
                what = f"{question.route} answers {writer} about a row of {owner} with neither 403 nor 404."
                found.append(finding(what, why.ORACLE, writer, question, answer))
            else:
                found += tells_apart(owner, writer, question, foreign)
    own = unanswered(asked[0].route, owner, asked, [question.ask(owner.client) for question in asked])
    refusals = [each for each in found if each.why not in (why.ORACLE, why.ALLOWED)]
    return [*refusals, *own] if own else found


def _essence(question: Question, answer: httpx.Response) -> tuple[int, str]:
    """An answer without what the question named."""
    text = answer.text
    for value in sorted(question.values.values(), key=len, reverse=True):
        text = text.replace(value, "…")
    return answer.status_code, text

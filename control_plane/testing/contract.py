"""`TenancyContract`: tests that every application of several tenants should pass. Inherit it, say how to fill one."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from control_plane.testing import findings as why
from control_plane.testing.application import Tenancy, Tenant
from control_plane.testing.boundaries import (
    ENDED,
    ENDINGS,
    PAUSES,
    POISONS,
    cancelled,
    ended,
    interleaved,
    poisoned,
    reads_go_on,
)
from control_plane.testing.canary import attack, leaks, missing, tells_apart, unanswered
from control_plane.testing.findings import Finding, finding, report
from control_plane.testing.probe import probe, seen
from control_plane.testing.questions import Filled, Missing, Question, filled, questions
from control_plane.testing.routes import READS, Route, paths_of, routes_of, unbound_routes

Pair = tuple[Tenant, Tenant]
Reads = list[tuple[Route, list[Question]]]


class TenancyContract:
    """Inherit this as `class TestTenancy(TenancyContract):` and write `fill`.

    Every test works on the running application of the fixture `tenancy`, most of them once per isolation mode.
    `public` are paths that need no tenant. `exempt` are requests that are not made, as in `"GET /events"`, for example
    because the answer does not end. `bodies` says what is sent to a route, as in `"POST /tickets/{ticket_id}/close"`:
    JSON, or a function that gets what `fill` returned and answers JSON.
    """

    public: ClassVar[Collection[str]] = ()
    exempt: ClassVar[Collection[str]] = ()
    bodies: ClassVar[Mapping[str, Any]] = {}

    def fill(self, tenant: Tenant, marker: str) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Make rows of `tenant` that hold `marker`, a word that nobody can guess, and return values of parameters.

        Their names are those of path and query parameters, as in `{"ticket_id": ticket["id"], "q": marker}`; a list
        where one name means several things. Use `tenant.client`, or make this a coroutine, which runs on the loop of
        the application: there `tenant.async_client` and `tenant_context(tenant.id, tenant.user_id, of=tenant.app)`
        work. It is called several times for one tenant.
        """
        raise NotImplementedError(f"{type(self).__name__}.fill() has to say how a tenant is filled")

    # The routes

    def test_every_route_demands_a_tenant(self, tenancy: Tenancy) -> None:
        unbound = unbound_routes(tenancy.app, self.public)
        known = {str(route) for route in routes_of(tenancy.app)} | paths_of(tenancy.app)
        stray = sorted({*self.public, *self.exempt, *self.bodies} - known)
        _fail(
            *(Finding(f"{path} answers without a tenant.", why.UNBOUND) for path in unbound),
            *(Finding(f"There is no route {name}.", why.STRAY) for name in stray),
        )

    def test_without_a_token_no_route_answers(self, tenancy: Tenancy) -> None:
        found = []
        for route in routes_of(tenancy.app):
            if route.demands_tenant and str(route) not in self.exempt:
                question = Question(route, dict.fromkeys((*route.parameters, *route.needed), secrets.token_hex(4)))
                answer = question.ask(tenancy.anonymous)
                if answer.status_code != 401:
                    found.append(finding(f"{route} answers without a token.", why.UNBOUND, "nobody", question, answer))
        _fail(*found)

    # The rows

    def test_reads_show_a_tenant_only_its_own(self, tenancy: Tenancy, tenancy_pair: Pair) -> None:
        rows = {tenant: self._filled(tenancy, tenant) for tenant in tenancy_pair}
        found: list[Finding] = []
        for owner, reader in (tenancy_pair, tenancy_pair[::-1]):
            found += self._reads_show(tenancy, owner, reader, rows)
        _fail(*found)

    def test_rows_of_others_are_answered_like_unknown_ones(self, tenancy: Tenancy, tenancy_pair: Pair) -> None:
        owner, reader = tenancy_pair
        rows, others = self._filled(tenancy, owner), self._filled(tenancy, reader)
        foreign = rows.foreign(others)
        reads, _ = self._reads(tenancy, rows)
        named = [each for _, asked in reads for each in asked if not foreign.keys().isdisjoint(each.values.values())]
        _fail(*(each for question in named for each in tells_apart(owner, reader, question, foreign)))

    def test_writes_change_nothing_of_another_tenant(self, tenancy: Tenancy, tenancy_pair: Pair) -> None:
        owner, writer = tenancy_pair
        others = self._filled(tenancy, writer)
        found: list[Finding] = []
        for route in routes_of(tenancy.app):
            body = self.bodies.get(str(route))
            if route.method in READS or not (route.parameters or callable(body)) or self._left_out(route):
                continue
            rows = self._filled(tenancy, owner)  # anew: the last attack ended with the owner's own change
            try:
                asked = questions(route, rows.values, _body(body, rows))
                if route.parameters and callable(body):  # a row of the writer's own, to be tied to one of the owner
                    asked += questions(route, others.values, _body(body, rows))
            except Missing as error:
                found.append(missing(error))
            else:
                found += attack(tenancy, owner, writer, asked, rows, others)
        _fail(*found)

    # The connections

    def test_connections_carry_nothing_to_the_next_tenant(self, tenancy: Tenancy, tenancy_pair: Pair) -> None:
        first, second = tenancy_pair
        rows = {tenant: self._filled(tenancy, tenant) for tenant in tenancy_pair}
        asked = {tenant: self._each_read(tenancy, rows[tenant]) for tenant in tenancy_pair}
        secret = {first: rows[second].secrets(rows[first]), second: rows[first].secrets(rows[second])}
        found: list[Finding] = []
        with tenancy.one_connection(), probe(tenancy) as probed:
            backends = {probed.ask(tenant, seen).backend for tenant in (first, second, first)}
            assert len(backends) == (1 if first.isolation == "shared" else 2), "there is more than one connection"
            for number, poison in enumerate(POISONS):
                # A home of one's own has a connection of its own, which only its tenant gets again.
                found += poisoned(poison, first, second if first.isolation == "shared" else first, probed)
                for tenant, other in ((second, first), (first, second)):
                    question = asked[tenant][number % len(asked[tenant])]
                    found += reads_go_on([question], tenant, other, secret[tenant])
            found += tenancy.run(interleaved, asked, secret)
        _fail(*found)

    def test_the_tenant_outlives_transactions_and_failures(self, tenancy: Tenancy, tenancy_pair: Pair) -> None:
        with tenancy.one_connection(), probe(tenancy) as probed:
            _fail(*(each for name in ENDINGS for each in ended(name, *tenancy_pair, probed)))

    def test_cancelled_requests_leave_nothing_behind(self, tenancy: Tenancy, tenancy_pair: Pair) -> None:
        first, second = tenancy_pair
        rows = {tenant: self._filled(tenancy, tenant) for tenant in tenancy_pair}
        asked = {tenant: self._each_read(tenancy, rows[tenant]) for tenant in tenancy_pair}
        # Whoever gets the connection next: in a home of one's own the same tenant.
        tenant, other = (second, first) if first.isolation == "shared" else (first, second)
        secret = rows[other].secrets(rows[tenant])
        found: list[Finding] = []
        with tenancy.one_connection():
            for interrupted, question in zip(asked[first], asked[tenant], strict=True):
                ended = 0
                for pause in range(1, PAUSES):
                    ended = 0 if tenancy.run(cancelled, interrupted, first, pause) else ended + 1
                    if ended == ENDED:
                        break
                    found += [
                        replace(each, what=f"{each.what} Before that, {interrupted} was cancelled.")
                        for each in reads_go_on([question], tenant, other, secret)
                    ]
        _fail(*found)

    # What they are made of

    def _reads_show(
        self, tenancy: Tenancy, owner: Tenant, reader: Tenant, rows: Mapping[Tenant, Filled]
    ) -> list[Finding]:
        secret = rows[owner].secrets(rows[reader])
        own, found = self._reads(tenancy, rows[owner])
        others = dict(self._reads(tenancy, rows[reader])[0])
        marked = False
        for route, asked in own:
            answers = [question.ask(owner.client) for question in asked]
            marked |= any(rows[owner].marker in answer.text for answer in answers)
            found += unanswered(route, owner, asked, answers)
            # Right after the owner, who may have left something in a cache.
            for question in {str(each): each for each in (*asked, *others.get(route, ()))}.values():
                found += leaks(owner, reader, question, question.ask(reader.client), secret)
        if not marked:
            found.append(Finding(f"No read shows {owner} the marker that fill() put in its rows.", why.EMPTY))
        return found

    def _filled(self, tenancy: Tenancy, tenant: Tenant) -> Filled:
        marker = f"canary{secrets.token_hex(8)}"
        if inspect.iscoroutinefunction(self.fill):
            return filled(marker, tenancy.run(self.fill, tenant, marker))
        returned = self.fill(tenant, marker)
        assert isinstance(returned, Mapping), f"fill() returned {returned!r}, not the values of parameters by name"
        return filled(marker, returned)

    def _reads(self, tenancy: Tenancy, rows: Filled) -> tuple[Reads, list[Finding]]:
        """What to ask of each route, and findings on those that cannot be asked."""
        reads: Reads = []
        found = []
        for route in routes_of(tenancy.app):
            if route.method in READS and not self._left_out(route):
                try:
                    reads.append((route, questions(route, rows.values)))
                except Missing as error:
                    found.append(missing(error))
        return reads, found

    def _each_read(self, tenancy: Tenancy, rows: Filled) -> list[Question]:
        reads, found = self._reads(tenancy, rows)
        if not reads:
            _fail(*found, Finding("There is no read that could be asked.", why.EMPTY))
        return [asked[0] for _, asked in reads]

    def _left_out(self, route: Route) -> bool:
        return route.path in self.public or str(route) in self.exempt


def _body(body: Any, rows: Filled) -> Any:
    return body({name: values[0] for name, values in rows.values.items()}) if callable(body) else body


def _fail(*findings: Finding) -> None:
    if findings:
        pytest.fail(report(findings), pytrace=False)

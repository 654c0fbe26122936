"""The control routes of subscriptions, and the keys by which webhooks are known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import trio

from exo_stream.errors import InvalidRequestError
from exo_stream.protocol.http import Headers, Response, json_response
from exo_stream.protocol.streams.queries import parameters
from exo_stream.protocol.streams.subscribing import (
    BODY_BYTES_MAX,
    JWKS,
    AskedReport,
    AskedWrongError,
    Route,
    asked_report,
    asked_streams,
    asked_subscription,
    asked_worker,
    body_of,
    route_of,
    trimmed,
)
from exo_stream.protocol.streams.webhook_urls import WebhookUrlError, webhook_url
from exo_stream.server.request import Request
from exo_stream.server.streams.service import NO_STORE, Service, empty
from exo_stream.server.streams.signing import Signing
from exo_stream.server.streams.wakes import told
from exo_stream.stream_errors import InvalidStreamNameError
from exo_stream.streams.checks import check_name
from exo_stream.streams.subscriptions.looking import NOT_FOUND, Code, Denied
from exo_stream.streams.subscriptions.record import Kind, Subscription, SubscriptionConfig
from exo_stream.streams.subscriptions.step import Ack
from exo_stream.streams.subscriptions.subscriptions import Subscriptions
from exo_stream.streams.subscriptions.tokens import Scope, judge, mint
from exo_stream.streams.subscriptions.waking import Report

STATUS_OF_DENIAL: Final[Mapping[Code, int]] = {
    "INVALID_REQUEST": 400,
    "WEBHOOK_URL_REJECTED": 400,
    "TOKEN_INVALID": 401,
    "TOKEN_EXPIRED": 401,
    "SUBSCRIPTION_NOT_FOUND": 404,
    "SUBSCRIPTION_ALREADY_EXISTS": 409,
    "FENCED": 409,
    "ALREADY_CLAIMED": 409,
    "NO_PENDING_WORK": 409,
    "INVALID_OFFSET": 409,
}
"""The HTTP status of each code."""

LISTED_MAX: Final = 1_000
"""Streams that one answer lists; ``after`` in the query asks for those behind one."""

_KEYS: Final[Headers] = (
    ("content-type", "application/jwk-set+json"),
    ("cache-control", "public, max-age=300"),
)
_METHODS: Final = {"": "GET, PUT, DELETE", "stream": "DELETE"}
_SHOWN: Final = ("path", "link_type", "acked_offset")
_BEARER: Final = "Bearer "


class SubscriptionRoutes:
    """Answers requests below ``/v1/stream/__ds/``, in the words of that part of the protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, request: Request, fields: Mapping[str, str]) -> Response:
        """The answer, refusals included; only errors of the platform are raised."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if request.head.path == JWKS:
                return await self._jwks(request.head.method)
            route = route_of(request.head.path)
            if route is None:
                return denied(Denied("SUBSCRIPTION_NOT_FOUND", "there is no such control route"))
            return await self._ask(request, fields, route)
        except WebhookUrlError as error:
            return denied(Denied("WEBHOOK_URL_REJECTED", str(error)))
        except (AskedWrongError, InvalidStreamNameError, InvalidRequestError) as error:
            return denied(Denied("INVALID_REQUEST", str(error)))

    async def _jwks(self, method: str) -> Response:
        if method not in {"GET", "HEAD"}:
            await trio.lowlevel.checkpoint_if_cancelled()
            return empty(405, ("allow", "GET, HEAD"))
        keys = Signing(await self._subscriptions.secret()).jwks()
        return Response(200, _KEYS, json_response(200, keys).body)

    async def _ask(  # noqa: PLR0911  one for each route
        self, request: Request, fields: Mapping[str, str], route: Route
    ) -> Response:
        method = request.head.method
        match route.action, "GET" if method == "HEAD" else method:
            case "", "PUT":
                return await self._create(request, fields, route.subscription_id)
            case "", "GET":
                return await self._show(request, fields, route.subscription_id)
            case "", "DELETE":
                await self._subscriptions.delete(route.subscription_id)
                return empty(204)
            case "streams", "POST":
                return await self._name_streams(request, route.subscription_id)
            case "stream", "DELETE":
                name = route.stream
                check_name(name)
                answer = await self._subscriptions.unname_stream(route.subscription_id, name)
                return empty(204) if answer is None else denied(answer)
            case "claim", "POST":
                return await self._claim(request, route.subscription_id)
            case "callback" | "ack" | "release", "POST":
                return await self._report(request, fields, route)
            case _:
                await trio.lowlevel.checkpoint_if_cancelled()
                return empty(405, ("allow", _METHODS.get(route.action, "POST")))

    async def _create(
        self, request: Request, fields: Mapping[str, str], subscription_id: str
    ) -> Response:
        asked = asked_subscription(await _body(request))
        for name in asked.streams:
            check_name(name)
        if asked.kind == "webhook":
            webhook_url(asked.target, loopback=self._service.settings.webhook_loopback)
        else:
            check_name(asked.target)
        config = SubscriptionConfig(
            asked.kind,
            asked.pattern,
            asked.streams,
            asked.target,
            asked.lease_ttl_ms,
            asked.description,
        )
        base_url = self._base_url(fields)
        made = await self._subscriptions.create(subscription_id, config, base_url)
        if isinstance(made, Denied):
            return denied(made)
        value = await self._value(subscription_id, made.subscription, base_url, "")
        return json_response(201 if made.is_new else 200, value, (NO_STORE,))

    async def _show(
        self, request: Request, fields: Mapping[str, str], subscription_id: str
    ) -> Response:
        subscription = await self._subscriptions.finding.subscription(subscription_id)
        if subscription is None:
            return denied(NOT_FOUND)
        after = dict(parameters(request.head.query)).get("after", "")
        value = await self._value(subscription_id, subscription, self._base_url(fields), after)
        return json_response(200, value, (NO_STORE,))

    async def _name_streams(self, request: Request, subscription_id: str) -> Response:
        names = asked_streams(await _body(request))
        if not names:
            raise AskedWrongError("streams is an array of names, at least one")
        for name in names:
            check_name(name)
        answer = await self._subscriptions.name_streams(subscription_id, names)
        return empty(204) if answer is None else denied(answer)

    async def _claim(self, request: Request, subscription_id: str) -> Response:
        worker = asked_worker(await _body(request))
        state = await self._subscriptions.claim(subscription_id, worker)
        if isinstance(state, Denied):
            return denied(state)
        assert state.wake is not None
        secret = await self._subscriptions.secret()
        value = {
            "wake_id": state.wake.id,
            "generation": state.subscription.generation,
            "token": mint(secret, state.scope, self._subscriptions.now),
            "streams": [told(info) for info in state.streams],
            "lease_ttl_ms": state.subscription.config.lease_ttl_ms,
        }
        return json_response(200, value, (NO_STORE,))

    async def _report(self, request: Request, fields: Mapping[str, str], route: Route) -> Response:
        scope = await self._scope(fields)
        if isinstance(scope, Denied):
            return denied(scope)
        asked = asked_report(await _body(request))
        acks = _acks(asked)
        if acks is None:
            return denied(Denied("INVALID_OFFSET", "an ack has an offset that a stream gave"))
        is_release = route.action == "release"
        report = Report(
            scope,
            asked.generation,
            asked.wake_id,
            [] if is_release else acks,
            is_release or asked.is_done,
        )
        kind: Kind = "webhook" if route.action == "callback" else "pull-wake"
        state = await self._subscriptions.report(route.subscription_id, kind, report)
        if isinstance(state, Denied):
            return denied(state)
        if is_release:
            return empty(204)
        has_next = report.is_done and state.wake is not None
        return json_response(200, {"ok": True, "next_wake": has_next}, (NO_STORE,))

    async def _scope(self, fields: Mapping[str, str]) -> Scope | Denied:
        """What the request's token is good for."""
        said = fields.get("authorization", "")
        if not said.startswith(_BEARER):
            await trio.lowlevel.checkpoint_if_cancelled()
            return Denied("TOKEN_INVALID", "a report brings the token of its wake as a bearer")
        secret = await self._subscriptions.secret()
        scope = judge(secret, said.removeprefix(_BEARER), self._subscriptions.now)
        if isinstance(scope, Scope):
            return scope
        return Denied(scope, "the token is too old" if scope == "TOKEN_EXPIRED" else "no token")

    async def _value(
        self, subscription_id: str, subscription: Subscription, base_url: str, after: str
    ) -> dict[str, object]:
        """A subscription as it is shown, with the first streams behind ``after``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        config = subscription.config
        streams: list[dict[str, object]] = []
        resume: str | None = trimmed(after)
        while resume is not None and len(streams) < LISTED_MAX:
            finding = self._subscriptions.finding
            found = await finding.page(subscription_id, subscription, resume)
            streams += [told(info) for info in found.streams]
            resume = found.resume
        created = datetime.fromtimestamp(subscription.created_at / 1_000_000, UTC)
        value: dict[str, object] = {
            "id": subscription_id,
            "subscription_id": subscription_id,
            "type": config.kind,
            "pattern": config.pattern,
            "streams": [{name: info[name] for name in _SHOWN} for info in streams],
            "streams_after": resume,
            "description": config.description,
            "lease_ttl_ms": config.lease_ttl_ms,
            "created_at": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "status": subscription.status,
        }
        if config.kind == "pull-wake":
            value["wake_stream"] = config.target
        else:
            kid = Signing(await self._subscriptions.secret()).kid
            signing = {"alg": "ed25519", "kid": kid, "jwks_url": base_url + JWKS}
            value["webhook"] = {"url": config.target, "signing": signing}
        return {name: part for name, part in value.items() if part is not None}

    def _base_url(self, fields: Mapping[str, str]) -> str:
        """How this server is reached from elsewhere: as it is told, else as the caller did."""
        return self._service.settings.public_url or f"http://{fields.get('host', 'localhost')}"

    @property
    def _subscriptions(self) -> Subscriptions:
        return self._service.streams.subscriptions


def denied(why: Denied) -> Response:
    """A refusal as this part of the protocol writes it."""
    error: dict[str, object] = {"code": why.code, "message": why.message}
    if why.current_holder is not None:
        error["current_holder"] = why.current_holder
        error["generation"] = why.generation
    return json_response(STATUS_OF_DENIAL[why.code], {"error": error}, (NO_STORE,))


async def _body(request: Request) -> Mapping[str, object]:
    return body_of(await request.read(BODY_BYTES_MAX))


def _acks(asked: AskedReport) -> list[Ack] | None:
    """What is acknowledged; None if one of the offsets is none."""
    acks = [Ack(name, position) for name, position in asked.acks if position is not None]
    return acks if len(acks) == len(asked.acks) else None

"""What must hold before a transaction: the keys it declares, and validators that look at them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Self

import trio

from exo_stream.canonical.changes import Changes, PreflightResult
from exo_stream.canonical.contexts import PreflightContext, Reading, TransactionContext
from exo_stream.canonical.state import check_key
from exo_stream.canonical.values import TypedValue
from exo_stream.errors import (
    ConfigError,
    ExoStreamError,
    InvalidRequestError,
    PreflightFailedError,
)

DECLARED_KEYS_MAX: Final = 10_000

Validator = Callable[[PreflightContext], Awaitable[None]]
Body = Callable[[TransactionContext], Awaitable[None]]
Check = Callable[[TypedValue | None], bool | None]


class Preflighted:
    """Built with the keys it touches and what must hold of them, wherever it is executed."""

    def __init__(self) -> None:
        self._declared: set[bytes] = set()
        self._validators: list[Validator] = []

    def keys(self, keys: Iterable[bytes]) -> Self:
        """Declare the keys it may read and write. Raises ConfigError beyond 10,000 of them."""
        if isinstance(keys, bytes | str):
            raise InvalidRequestError("keys are several keys, not one")
        declared = list(keys)
        for key in declared:
            check_key(key, "keys")
        self._declared.update(declared)
        if len(self._declared) > DECLARED_KEYS_MAX:
            raise ConfigError(f"a transaction declares at most {DECLARED_KEYS_MAX} keys")
        return self

    def validate(self, validator: Validator) -> Self:
        """Have ``validator`` look at the declared keys, and raise if it objects.

        Validators run at the same time, on one snapshot. What one raises ends the
        transaction: an error of exo_stream as it is, any other as the ``__cause__`` of a
        PreflightFailedError.
        """
        self._validators.append(validator)
        return self

    def require(self, key: bytes, check: Check) -> Self:
        """Declare ``key``, and have ``check`` look at its value; it raises, or answers False."""

        async def validator(context: PreflightContext) -> None:
            if check(await context.get_opt(key)) is False:
                raise PreflightFailedError(f"key {key!r} is not as required")

        return self.keys([key]).validate(validator)

    def require_exists(self, key: bytes) -> Self:
        """Declare ``key``, which must be there."""

        async def validator(context: PreflightContext) -> None:
            if not await context.exists(key):
                raise PreflightFailedError(f"key {key!r} does not exist")

        return self.keys([key]).validate(validator)

    def require_min(self, key: bytes, least: int) -> Self:
        """Declare ``key``, whose integer must be ``least`` or more; InvalidStateError if it is
        absent, or no integer.
        """

        async def validator(context: PreflightContext) -> None:
            number = (await context.get(key)).as_integer()
            if number < least:
                raise PreflightFailedError(f"key {key!r} is {number}, less than {least}")

        return self.keys([key]).validate(validator)

    def require_max(self, key: bytes, most: int) -> Self:
        """Declare ``key``, whose integer must be ``most`` or less; InvalidStateError if it is
        absent, or no integer.
        """

        async def validator(context: PreflightContext) -> None:
            number = (await context.get(key)).as_integer()
            if number > most:
                raise PreflightFailedError(f"key {key!r} is {number}, more than {most}")

        return self.keys([key]).validate(validator)

    async def _judged(self, reading: Reading) -> PreflightResult:
        """What the validators say, and nothing else."""
        await trio.lowlevel.checkpoint_if_cancelled()
        context = PreflightContext(reading, self._declared)
        try:
            await self._run_validators(context)
        except ExoStreamError as error:
            return PreflightResult.failure(str(error)).with_keys(context.reads, ())
        finally:
            context.close()
        return PreflightResult.success().with_keys(context.reads, ())

    async def _prepare(self, reading: Reading, body: Body) -> Changes:
        """What the transaction read and wants to change, once the validators are content."""
        context = TransactionContext(reading, self._declared)
        try:
            if self._validators:
                await self._run_validators(context)
            await body(context)
        finally:
            context.close()
        return context.changes()

    async def _run_validators(self, context: PreflightContext) -> None:  # noqa: ASYNC910  each validator has one
        if len(self._validators) < 2:
            for validator in self._validators:
                await _validate(validator, context)
            return  # noqa: ASYNC910  # what follows is one
        failures: dict[int, ExoStreamError] = {}
        scopes = [trio.CancelScope() for _ in self._validators]

        async def run(number: int, validator: Validator) -> None:  # noqa: ASYNC910  the validator has one
            with scopes[number]:
                try:
                    await _validate(validator, context)
                except ExoStreamError as error:
                    failures[number] = error
                    # Those registered before go on: if one of them objects too, it is told.
                    for later in scopes[number + 1 :]:
                        later.cancel()

        async with trio.open_nursery() as nursery:
            for number, validator in enumerate(self._validators):
                nursery.start_soon(run, number, validator)
        if failures:
            raise failures[min(failures)]


async def _validate(validator: Validator, context: PreflightContext) -> None:  # noqa: ASYNC910  the validator has one
    try:
        await validator(context)
    except ExoStreamError:
        raise
    except Exception as error:
        raise PreflightFailedError(f"a validator raised {error!r}") from error

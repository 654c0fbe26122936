"""Power cuts: what may be on the disk when the machine dies, made from what was and was not synced.

What a process wrote and had not synced may be there, be missing, or be there in part: pages of the
same write reach the disk in any order. What was synced is there.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from exo_stream.errors import CorruptionError
from exo_stream.limits import KIB, MIB, Limits
from exo_stream.opening import open_platform
from exo_stream.producers import Producer
from exo_stream.storage.directory import beside
from exo_stream.storage.repair import WalVerdict, repair_wal
from tests.torture import verifier, workload
from tests.torture.child import Assignment
from tests.torture.journal import Journal
from tests.torture.life import AtSyscall, Fault, live

PAGE: Final = 4096
HEADERS: Final = 3 * PAGE
"""The head of a DuckDB file, and after it two slots that a CHECKPOINT writes in turn."""


@dataclass(frozen=True, slots=True)
class State:
    """What a disk holds after a power cut; ``wal`` is None if the name was gone."""

    name: str
    file: bytes
    wal: bytes | None


async def write(path: Path, journal: Journal, count: int, limits: Limits) -> tuple[State, int]:
    """Let the journal's first writer write, then the second one a large batch.

    Answers what is on the disk then, and how long the WAL was before that last batch.
    """
    async with open_platform(path, limits=limits) as store:
        journal.hear(f"opened {store.log_id} 0 1")
        synced = 0
        for writer, number in [*((0, number) for number in range(count)), (1, 0)]:
            synced = beside(path, ".wal").stat().st_size
            work = workload.work(journal.seed, writer, number)
            producer = Producer(b"writer %d" % writer, epoch=0, seq=number)
            journal.hear(f"try {writer} {number}")
            sequence = await store.write(puts=work.puts, deletes=work.deletes, producer=producer)
            if writer == 0:  # the power is cut before the last is acknowledged
                journal.hear(f"ack {writer} {number} {sequence}")
        return read(path, "as it was"), synced


def read(path: Path, name: str) -> State:
    """What is at ``path`` now."""
    wal = beside(path, ".wal")
    return State(name, path.read_bytes(), wal.read_bytes() if wal.exists() else None)


def without_the_end(state: State, synced: int, dice: random.Random, count: int) -> Iterator[State]:
    """States in which the WAL beyond ``synced`` bytes has reached the disk in part."""
    assert state.wal is not None
    whole = state.wal
    yield State("nothing of it", state.file, whole[:synced])
    yield State("all of it", state.file, whole)
    yield State("only its length", state.file, whole[:synced] + bytes(len(whole) - synced))
    for _ in range(count):
        wal = bytearray(whole)
        at = dice.randrange(synced, len(whole))
        match dice.choice(("cut", "zeros to the end", "pages of zeros", "garbage", "bit")):
            case "cut" as name:
                del wal[at:]
            case "zeros to the end" as name:
                wal[at:] = bytes(len(wal) - at)
            case "pages of zeros" as name:
                for start in _pages(synced, len(wal), dice):
                    wal[start : start + PAGE] = bytes(len(wal[start : start + PAGE]))
            case "garbage" as name:
                end = min(len(wal), at + dice.randrange(1, 600))
                wal[at:end] = dice.randbytes(end - at)
            case name:
                wal[at] ^= 1 << dice.randrange(8)
        yield State(f"{name} at {at}", state.file, bytes(wal))


def _pages(start: int, end: int, dice: random.Random) -> Sequence[int]:
    """Some pages of what was not synced, the first one from where that begins."""
    starts = [start, *range((start // PAGE + 1) * PAGE, end, PAGE)]
    # Of the first page nothing is lost that was synced: it is kept, or was never written anew.
    return dice.sample(starts[1:], dice.randint(1, max(1, len(starts) // 2)))


async def checkpointed(path: Path, command: Sequence[str]) -> State:
    """What the file is once a CHECKPOINT is whole and its WAL not yet gone.

    ``command`` opens the file, which ends with a CHECKPOINT; it dies on unlinking the WAL.
    """
    fault = Fault(AtSyscall("unlink", 1).injection, beside(path, ".wal"))
    ended = await live(command, lambda _: None, fault)
    assert ended.killed, ended
    return read(path, "checkpointed")


def within_a_checkpoint(
    before: State, after: State, dice: random.Random, count: int
) -> Iterator[State]:
    """States between a file before a CHECKPOINT and after it.

    Its mark in the WAL is synced before the file is touched, and the head is written when all
    else is synced.
    """
    assert before.wal is not None
    assert after.wal is not None
    assert after.wal.startswith(before.wal), "a CHECKPOINT adds its mark to the WAL"
    mark = dice.randint(len(before.wal), len(after.wal))
    yield State("its mark in part", before.file, after.wal[:mark])
    yield State("begun", before.file, after.wal)
    yield State("whole", after.file, after.wal)
    yield State("whole, and the WAL gone", after.file, None)
    changed = changed_pages(before, after)
    for number in range(count):
        file = bytearray(before.file)
        if dice.random() < 0.5:
            file.extend(bytes(max(0, len(after.file) - len(file))))
        for start in sorted(dice.sample(changed, dice.randint(0, len(changed)))):
            if start <= len(file):
                file[start : start + PAGE] = after.file[start : start + PAGE]
        yield State(f"in part, {number}", bytes(file), after.wal)


def changed_pages(before: State, after: State) -> list[int]:
    """Where the pages begin that a CHECKPOINT wrote, without its headers."""
    return [
        start
        for start in range(HEADERS, len(after.file), PAGE)
        if after.file[start : start + PAGE] != before.file[start : start + PAGE]
    ]


def put(state: State, folder: Path) -> Path:
    """The state as a file in a fresh folder."""
    path = verifier.fresh(folder) / "feed.duckdb"
    path.write_bytes(state.file)
    if state.wal is not None:
        beside(path, ".wal").write_bytes(state.wal)
    return path


async def judge(state: State, folder: Path, journal: Journal) -> str:
    """What is acknowledged is there, in an opened or a repaired file; answers which it was."""
    path = put(state, folder)
    try:
        verdict = repair_wal(path).verdict
        if verdict is WalVerdict.REPAIRABLE:
            repair_wal(path, apply=True)
        await verifier.judge(path, copy.deepcopy(journal))
    except BaseException as error:
        error.add_note(f"power cut: {state.name}")
        raise
    return verdict.value


CALM: Final = Limits(
    free_bytes_min=1 * MIB, checkpoint_wal_bytes=64 * MIB, checkpoint_idle_wal_bytes=64 * MIB
)
"""Nothing is folded, and no CHECKPOINT happens: the WAL holds every batch."""


async def opens(path: Path) -> bool:
    """Whether the file opens as it is, without a repair."""
    try:
        async with open_platform(path, limits=CALM):
            return True
    except CorruptionError:
        return False


async def rotten(seed: str, folder: Path, count: int) -> list[str]:
    """Flip a bit, here and there: it is noticed, or harms nobody; answer which it was."""
    journal = Journal(seed, writers=2)
    dice = random.Random(seed)
    state, _ = await write(folder / "f", journal, 60, workload.LIMITS)
    assert state.wal
    found = []
    for _ in range(count):
        file, wal = bytearray(state.file), bytearray(state.wal)
        victim = dice.choice((file, wal))
        victim[dice.randrange(len(victim))] ^= 1 << dice.randrange(8)
        rotted = State("a bit", bytes(file), bytes(wal))
        is_sound = verifier.is_sound(put(rotted, folder / "cut"))
        try:
            await verifier.judge_contents(put(rotted, folder / "cut"), copy.deepcopy(journal))
        except CorruptionError:
            assert not is_sound, "verify must find what reading finds"
            found.append("noticed")
        else:
            found.append("harmless")
    return found


async def torn_commits(seed: str, folder: Path, count: int) -> list[str]:
    """Judge states of a file whose last COMMIT had not returned; answer how each was opened."""
    journal = Journal(seed, writers=2)
    dice = random.Random(seed)
    state, synced = await write(folder / "f", journal, 12, CALM)
    cuts = without_the_end(state, synced, dice, count)
    return [await judge(cut, folder / "cut", journal) for cut in cuts]


async def torn_checkpoints(seed: str, folder: Path, count: int) -> list[str]:
    """Judge states of a file whose last CHECKPOINT had not returned; answer how each was opened."""
    journal = Journal(seed, writers=2)
    before, after = await around_a_checkpoint(folder, journal)
    cuts = within_a_checkpoint(before, after, random.Random(seed), count)
    return [await judge(cut, folder / "cut", journal) for cut in cuts]


async def around_a_checkpoint(folder: Path, journal: Journal) -> tuple[State, State]:
    """A file before a CHECKPOINT and after it."""
    limits = replace(workload.LIMITS, checkpoint_wal_bytes=512 * KIB)
    before, _ = await write(folder / "f", journal, 60, limits)
    path = put(before, folder / "checkpointed")
    assignment = Assignment(str(path), journal.seed, first_numbers=[], batches=0)
    return before, await checkpointed(path, assignment.command())

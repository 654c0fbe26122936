"""Which backups may go: whole chains, so that whatever stays can be restored."""

from __future__ import annotations

from collections.abc import Sequence

from exo_stream.backup.manifest import Manifest


def expired(
    manifests: Sequence[Manifest], *, full_max: int, incremental_seconds: int, now: int
) -> list[Manifest]:
    """What is kept no longer, each before its parent; ``now`` in microseconds.

    Of each log the newest ``full_max`` full backups are kept, and of the incremental ones that
    follow them those that are younger than ``incremental_seconds``. A backup stays as long as
    anything that stays follows it. One whose parent is not there is kept: it is not known what
    it belongs to.
    """
    by_id = {manifest.backup_id: manifest for manifest in manifests}
    kept_fulls = _newest_fulls(manifests, full_max)
    kept: set[str] = set()
    for manifest in manifests:
        chain = chain_of(manifest, by_id)
        root, is_whole = chain[-1], chain[-1].parent_id is None
        age = now - manifest.created_at
        young = manifest.parent_id is None or age < incremental_seconds * 1_000_000
        if not is_whole or (root.backup_id in kept_fulls and young):
            kept |= {member.backup_id for member in chain}
    gone = [manifest for manifest in manifests if manifest.backup_id not in kept]
    return sorted(gone, key=lambda manifest: -len(chain_of(manifest, by_id)))


def chain_of(manifest: Manifest, by_id: dict[str, Manifest]) -> list[Manifest]:
    """It and what it follows, as far as that is there; the oldest last."""
    chain, seen = [manifest], {manifest.backup_id}
    while (parent := by_id.get(chain[-1].parent_id or "")) is not None:
        if parent.backup_id in seen:
            break  # a circle, which nobody of ours wrote: it stays as it is, without a root
        chain.append(parent)
        seen.add(parent.backup_id)
    return chain


def _newest_fulls(manifests: Sequence[Manifest], full_max: int) -> set[str]:
    by_log: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        if manifest.kind == "full":
            by_log.setdefault(manifest.log_id, []).append(manifest)
    return {
        manifest.backup_id
        for fulls in by_log.values()
        for manifest in sorted(fulls, key=lambda full: full.created_at)[-full_max:]
    }

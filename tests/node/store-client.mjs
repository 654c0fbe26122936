// A stock Connect client, built from our own .proto files, calls every method of the store's own API
// and meets its documented errors: node store-client.mjs URL json|binary GENERATED
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { compressionGzip, createConnectTransport } from "@connectrpc/connect-node";

const [url, format, generated] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${generated}/${name}_pb.js`).href);
const { Service: IngestService } = await load("store/ingest/v1/ingest");
const { Service: QueryService, DetailSchema } = await load("store/query/v1/query");
const { Service: StreamService } = await load("store/stream/v1/stream");
const { Service: CompactService } = await load("store/compact/v1/compact");
const details = await load("google/rpc/error_details");
const { fromBinary } = await import("@bufbuild/protobuf");

const transport = createConnectTransport({
  baseUrl: url,
  httpVersion: "1.1",
  useBinaryFormat: format === "binary",
  useHttpGet: true,
  acceptCompression: [compressionGzip],
  sendCompression: compressionGzip,
  compressMinBytes: 64,
});
const ingest = createClient(IngestService, transport);
const query = createClient(QueryService, transport);
const stream = createClient(StreamService, transport);
const compact = createClient(CompactService, transport);

const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => data && new TextDecoder().decode(data);
const pairs = (...keys) => keys.map((key) => ({ key: bytes(key), value: bytes(`value of ${key}`) }));
const detailOf = (headers) =>
  fromBinary(DetailSchema, Buffer.from(headers.get("x-store-query-detail-bin"), "base64"));

async function collect(messages) {
  const found = [];
  for await (const message of messages) found.push(message);
  return found;
}

async function refused(promise, code, reason, domain) {
  let error;
  try {
    await promise;
  } catch (caught) {
    error = ConnectError.from(caught);
  }
  assert.ok(error, `nothing was refused with ${reason}`);
  assert.equal(error.code, code, error.message);
  const infos = error.findDetails(details.ErrorInfoSchema);
  if (reason) {
    assert.deepEqual([infos[0].reason, infos[0].domain], [reason, domain]);
  } else {
    assert.deepEqual(infos, []);
  }
  return error;
}

async function reads() {
  const { sequenceNumber } = await ingest.put({ kvs: [...pairs("a", "b", "c"), ...pairs("big")] });
  let header;
  const got = await query.get(
    { key: bytes("a"), minSequenceNumber: sequenceNumber },
    { onHeader: (headers) => (header = headers) },
  );
  assert.equal(text(got.value), "value of a");
  assert.ok(detailOf(header).sequenceNumber >= sequenceNumber);
  assert.equal(detailOf(header).readStats.read_bytes, 11n);
  assert.equal((await query.get({ key: bytes("absent") })).value, undefined);

  let trailer;
  const many = await collect(
    query.getMany(
      { keys: ["c", "absent", "c"].map(bytes), batchSize: 2 },
      { onTrailer: (trailers) => (trailer = trailers) },
    ),
  );
  assert.deepEqual(
    many.map((frame) => frame.results.map((entry) => [text(entry.key), text(entry.value)])),
    [[["c", "value of c"], ["absent", undefined]], [["c", "value of c"]]],
  );
  assert.equal(detailOf(trailer).readStats.read_bytes, 28n);

  const rows = async (fields) =>
    (await collect(query.range({ batchSize: 100, ...fields }))).flatMap((frame) =>
      frame.results.map((row) => text(row.key)),
    );
  assert.deepEqual(await rows({ start: bytes("a"), end: bytes("c") }), ["a", "b", "big", "c"]);
  assert.deepEqual(await rows({ start: bytes("a"), end: bytes("c"), limit: 2, mode: 1 }), ["c", "big"]);
  assert.deepEqual(await rows({ limit: 0 }), []);

  const reduced = await query.reduce({ end: bytes("c"), params: { reducers: [{ op: 0 }] } });
  assert.deepEqual(
    reduced.results.map((result) => result.value.value),
    [{ case: "uint64Value", value: 4n }],
  );
  return sequenceNumber;
}

async function follows(since) {
  const batch = await stream.get({ sequenceNumber: since });
  assert.deepEqual(batch.entries.map((entry) => text(entry.key)), ["a", "b", "c", "big"]);
  const stop = new AbortController();
  const feed = stream.subscribe(
    {
      matchKeys: [{ payloadRegex: "(?s-u)^b.*" }],
      valueFilters: [{ kind: { case: "regex", value: "^value" } }],
      sinceSequenceNumber: since,
    },
    { signal: stop.signal },
  );
  const frames = [];
  let put;
  try {
    for await (const frame of feed) {
      frames.push([frame.sequenceNumber, frame.entries.map((entry) => text(entry.key))]);
      if (frames.length === 2) break;
      put = await ingest.put({ kvs: [...pairs("x", "bx"), { key: bytes("by"), value: bytes("no") }] });
    }
  } finally {
    stop.abort();
  }
  assert.deepEqual(frames, [
    [since, ["b", "big"]],
    [put.sequenceNumber, ["bx"]],
  ]);
}

async function prunes() {
  const matchKey = { payloadRegex: "^(?P<family>b)(?P<rest>.*)$" };
  const retain = { kind: { case: "dropAll", value: {} } };
  await compact.prune({ policies: [{ scope: { case: "keys", value: { matchKey } }, retain }] });
  assert.equal((await query.get({ key: bytes("big") })).value, undefined);
  assert.equal(text((await query.get({ key: bytes("a") })).value), "value of a");
  const keep = { kind: { case: "keepLatest", value: { count: 1n } } };
  await compact.prune({ policies: [{ scope: { case: "sequence", value: {} }, retain: keep }] });
}

async function meetsErrors(since) {
  const key = new Uint8Array(255);
  const first = (messages) => collect(messages);
  const invalid = Code.InvalidArgument;
  const bad = await refused(ingest.put({ kvs: [{ key }] }), invalid, "INVALID_KEY_LENGTH", "store.ingest");
  assert.equal(bad.findDetails(details.BadRequestSchema)[0].fieldViolations[0].field, "kvs[0].key");
  assert.equal(bad.findDetails(details.ErrorInfoSchema)[0].metadata.max_key_len, "254");
  await refused(ingest.put({}), invalid, "INVALID_BATCH", "store.ingest");
  await refused(query.get({ key }), invalid, "INVALID_KEY_LENGTH", "store.query");
  await refused(first(query.getMany({ batchSize: 1 })), invalid, "INVALID_BATCH", "store.query");
  await refused(first(query.range({})), invalid, "INVALID_BATCH_SIZE", "store.query");
  await refused(first(query.range({ batchSize: 1, mode: 99 })), invalid, "INVALID_TRAVERSAL_MODE", "store.query");
  await refused(query.reduce({}), invalid, "INVALID_REDUCE_PARAMS", "store.query");
  await refused(compact.prune({}), invalid, "INVALID_PRUNE_REQUEST", "store.compact");
  await refused(first(stream.subscribe({})), invalid);
  const early = await refused(
    query.get({ key: bytes("a"), minSequenceNumber: 10_000_000n }),
    Code.Aborted,
    "CONSISTENCY_NOT_READY",
    "store.query",
  );
  assert.equal(early.findDetails(details.RetryInfoSchema)[0].retryDelay.seconds, 1n);
  assert.ok(early.findDetails(DetailSchema)[0].sequenceNumber < 10_000_000n);
  const evicted = await refused(
    stream.get({ sequenceNumber: since }),
    Code.OutOfRange,
    "BATCH_EVICTED",
    "store.stream",
  );
  assert.match(evicted.findDetails(details.ErrorInfoSchema)[0].metadata.oldest_retained, /^\d+$/);
  await refused(
    first(stream.subscribe({ matchKeys: [{ payloadRegex: "a" }], sinceSequenceNumber: since })),
    Code.OutOfRange,
    "BATCH_EVICTED",
    "store.stream",
  );
  await refused(stream.get({ sequenceNumber: 10_000n }), Code.NotFound, "BATCH_NOT_FOUND", "store.stream");
  await refused(
    first(stream.subscribe({ matchKeys: [{ payloadRegex: "a" }] }, { timeoutMs: 50 })),
    Code.DeadlineExceeded,
  );
}

const since = await reads();
await follows(since);
await prunes();
await meetsErrors(since);
console.log("ok");
process.exit(0);

// The conformance suite of Durable Streams against exo-stream, which this file starts.
//
// STREAMS_SERVER is a command as a JSON array: it serves, and says where; for each address on its stdin it has the
// server killed (SIGKILL) and another one begun there. With STREAMS_RESTART=1 that is done before each group of
// tests, so that only what is durable can pass.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { afterAll, beforeEach } from "vitest"
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const [program, ...words] = JSON.parse(process.env.STREAMS_SERVER)
const restarts = process.env.STREAMS_RESTART === "1"
const GUARD_MS = 120_000

const server = spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] })
const ended = once(server, "exit")
const lines = createInterface(server.stdout)[Symbol.asyncIterator]()

async function port() {
  const { value, done } = await lines.next()
  if (done) throw new Error("the server said nothing more")
  return Number(new URL(JSON.parse(value).url.replace("ws:", "http:")).port)
}

const first = await port()

async function restart() {
  server.stdin.write(`127.0.0.1:${first}\n`)
  if ((await port()) !== first) throw new Error("the next server has another port")
}

// In good order, so that what it did is checked on its way out too.
afterAll(async () => {
  server.stdin.end()
  const [code] = await ended
  if (code !== 0) throw new Error(`the server ended with ${code}`)
}, GUARD_MS)

// The outermost group of a test; those of one group may run at once, and wait for the same restart.
function groupOf(task) {
  let suite = task.suite
  while (suite?.suite?.name) suite = suite.suite
  return suite?.name
}

let group
let ready = Promise.resolve()
beforeEach(async ({ task }) => {
  const next = groupOf(task)
  if (restarts && next !== group) {
    if (group !== undefined) ready = restart()
    group = next
  }
  await ready
}, GUARD_MS)

runConformanceTests({
  baseUrl: `http://127.0.0.1:${first}`,
  longPollTimeoutMs: 15_000, // how long a test may wait, not how long the server holds
  subscriptions: true,
})

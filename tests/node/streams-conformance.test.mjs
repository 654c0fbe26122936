// The conformance suite of Durable Streams against exo-stream, which this file starts.
//
// STREAMS_SERVER is the command as a JSON array. With STREAMS_RESTART=1 the server is killed (SIGKILL) and started
// anew before each group of tests, so that only what is durable can pass.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { afterAll, beforeEach } from "vitest"
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const command = JSON.parse(process.env.STREAMS_SERVER)
const restarts = process.env.STREAMS_RESTART === "1"

async function start(port) {
  const [program, ...words] = [...command, "--listen", `127.0.0.1:${port}`]
  const child = spawn(program, words, { stdio: ["ignore", "pipe", "inherit"] })
  const line = await Promise.race([
    once(createInterface(child.stdout), "line").then(([told]) => told),
    once(child, "exit").then(([code]) => Promise.reject(new Error(`the server ended with ${code}`))),
  ])
  const told = JSON.parse(line)
  return { child, port: Number(new URL(told.url.replace("ws:", "http:")).port) }
}

let server = await start(0)
const port = server.port

process.on("exit", () => server.child.kill("SIGKILL"))

async function restart() {
  const gone = once(server.child, "exit")
  server.child.kill("SIGKILL")
  await gone
  server = await start(port)
}

// In good order, so that what it covered is counted.
afterAll(async () => {
  const gone = once(server.child, "exit")
  server.child.kill("SIGTERM")
  await gone
}, 30_000)

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
}, 30_000)

runConformanceTests({
  baseUrl: `http://127.0.0.1:${port}`,
  longPollTimeoutMs: 15_000, // how long a test may wait, not how long the server holds
  subscriptions: process.env.STREAMS_SUBSCRIPTIONS === "1",
})

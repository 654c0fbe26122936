// Durable Streams' reference server, in memory or with its file store: node streams-reference.mjs PORT [FOLDER]
import { DurableStreamTestServer } from "@durable-streams/server"

const [port, dataDir] = process.argv.slice(2)
const server = new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", dataDir })
console.log(await server.start())

// An agent in another language, written from docs/agent-protocol.md: nothing but Node's own modules.
// Environment: REDIS_URL, TENANT, AGENT_TYPE. Each task answers the double of its input's n plus its dependencies' results.
import net from "node:net";
import { randomUUID } from "node:crypto";

const { REDIS_URL, TENANT, AGENT_TYPE } = process.env;
const address = new URL(REDIS_URL);
const hostId = `${AGENT_TYPE}-${randomUUID()}`;
const agents = `orc:{${TENANT}}:agents`;
const own = `orc:{${TENANT}}:tasks:${hostId}`;

// RESP2: commands go out as arrays of bulk strings, answers come back in order.
class Redis {
  constructor() {
    this.waiting = [];
    this.buffer = Buffer.alloc(0);
    this.socket = net.connect(Number(address.port), address.hostname);
    this.socket.on("data", (chunk) => this.take(chunk));
    this.socket.on("error", (error) => { console.error(error.message); process.exit(1); });
    this.ready = this.call("AUTH", ...(address.username ? [decodeURIComponent(address.username)] : []),
      decodeURIComponent(address.password));
  }

  call(...parts) {
    const encoded = parts.map((part) => `$${Buffer.byteLength(String(part))}\r\n${part}\r\n`).join("");
    this.socket.write(`*${parts.length}\r\n${encoded}`);
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  take(chunk) {
    this.buffer = Buffer.concat([this.buffer, chunk]);
    for (;;) {
      const read = this.parse(0);
      if (read === null) return;
      this.buffer = this.buffer.subarray(read.next);
      const { resolve, reject } = this.waiting.shift();
      if (read.value instanceof Error) reject(read.value);
      else resolve(read.value);
    }
  }

  parse(at) {
    const end = this.buffer.indexOf("\r\n", at);
    if (end < 0) return null;
    const kind = String.fromCharCode(this.buffer[at]);
    const text = this.buffer.toString("utf8", at + 1, end);
    if (kind === "+") return { value: text, next: end + 2 };
    if (kind === "-") return { value: new Error(text), next: end + 2 };
    if (kind === ":") return { value: Number(text), next: end + 2 };
    const length = Number(text);
    if (length < 0) return { value: null, next: end + 2 };
    if (kind === "$") {
      if (this.buffer.length < end + 2 + length + 2) return null;
      return { value: this.buffer.toString("utf8", end + 2, end + 2 + length), next: end + 4 + length };
    }
    const items = [];
    let next = end + 2;
    for (let i = 0; i < length; i += 1) {
      const item = this.parse(next);
      if (item === null) return null;
      items.push(item.value);
      next = item.next;
    }
    return { value: items, next };
  }
}

const reader = new Redis();
const writer = new Redis();
await Promise.all([reader.ready, writer.ready]);

const payload = JSON.stringify({ host_id: hostId, types: [AGENT_TYPE], capabilities: "*", slots: 2, pid: process.pid });
const say = (type) => writer.call("XADD", agents, "MAXLEN", "~", 10000, "*", "event_type", type,
  "timestamp", new Date().toISOString(), "payload", payload);

const had = new Set();
const kept = new Map(); // attempt -> how to report it, until it is consumed

async function report(entry, event) {
  await writer.call("XADD", entry.reply_to, "*", "x", entry.execution_id, "b", JSON.stringify([event]));
}

async function run(entry, task) {
  const key = [entry.execution_id, task.task_id, task.epoch, task.attempt].join("/");
  if (had.has(key)) return;
  had.add(key);
  const started = Date.now();
  const below = Object.values(task.results ?? {}).reduce((sum, value) => sum + value, 0);
  const event = {
    type: "agent.task_completed", task_id: task.task_id, agent_id: task.agent_id, epoch: task.epoch,
    attempt: task.attempt, started_at_ms: started, at_ms: Date.now(), result: 2 * (task.input?.n ?? 0) + below,
  };
  kept.set(key, () => report(entry, event));
  await report(entry, event);
}

await say("agent.registered");
setInterval(() => say("agent.heartbeat"), 500);
setInterval(() => kept.forEach((again) => again()), 10000);
process.on("SIGTERM", async () => { await say("agent.disconnected"); process.exit(0); });

let last = "0-0";
for (;;) {
  const answer = await reader.call("XREAD", "COUNT", 128, "BLOCK", 1000, "STREAMS", own, last);
  for (const [id, fields] of answer?.[0]?.[1] ?? []) {
    last = id;
    const entry = JSON.parse(fields[fields.indexOf("b") + 1]);
    if (entry.v !== 1) continue;
    if (entry.renew) process.exit(1);
    for (const [task, epoch, attempt] of entry.consumed ?? []) {
      kept.delete([entry.execution_id, task, epoch, attempt].join("/"));
    }
    for (const task of entry.assign ?? []) await run(entry, task);
  }
}

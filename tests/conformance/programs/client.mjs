// A client made with the TypeScript SDK: client.mjs ts1|ts2 legacy|auto, and cells on standard input, one a line:
// {"place": PLACE, "steps": [STEP...]}. For each, one connection and one line of JSON with the outcome of every step.
// A PLACE is {"command": [...], "env": {...}} or {"url": "...", "sse": true|false, "socket": "path of a Unix socket"};
// a STEP is an array of an operation and its arguments.
import { createInterface } from "node:readline";

const [sdk, mode] = process.argv.slice(2);
const modern = sdk === "ts2";
const base = modern ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/index.js";
const { Client } = await import(base);
const { Agent, fetch: fetchOver } = await import("undici");
const info = { name: `conformance ${sdk}`, version: "1" };
const TIMEOUT = 60000;

function through(place) {
  if (place.socket === undefined) return { options: {}, release: async () => {} };
  const dispatcher = new Agent({ connect: { socketPath: place.socket } });
  return { options: { fetch: (url, init) => fetchOver(url, { ...init, dispatcher }) }, release: () => dispatcher.destroy() };
}

async function transport(place, options) {
  if (place.command !== undefined) {
    const { StdioClientTransport } = await import(modern ? "@modelcontextprotocol/client/stdio" : "@modelcontextprotocol/sdk/client/stdio.js");
    const [command, ...args] = place.command;
    return new StdioClientTransport({ command, args, env: { ...process.env, ...place.env }, stderr: "ignore", maxBufferSize: 64 << 20 });
  }
  if (place.sse) {
    const { SSEClientTransport } = await import(modern ? base : "@modelcontextprotocol/sdk/client/sse.js");
    return new SSEClientTransport(new URL(place.url), options);
  }
  const { StreamableHTTPClientTransport } = await import(modern ? base : "@modelcontextprotocol/sdk/client/streamableHttp.js");
  return new StreamableHTTPClientTransport(new URL(place.url), options);
}

async function listening(client) {
  let heard = () => {};
  const updated = new Promise((resolve) => {
    heard = resolve;
  });
  if (modern) client.setNotificationHandler("notifications/resources/updated", (told) => heard(told.params.uri));
  else {
    const { ResourceUpdatedNotificationSchema } = await import("@modelcontextprotocol/sdk/types.js");
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, (told) => heard(told.params.uri));
  }
  return { client, updated };
}

const call = (client, name, args, options = {}) => (modern ? client.callTool({ name, arguments: args }, { timeout: TIMEOUT, ...options }) : client.callTool({ name, arguments: args }, undefined, { timeout: TIMEOUT, ...options }));
const said = (result) => {
  const text = (result.content ?? result.contents ?? []).map((item) => item.text ?? `<${item.type ?? item.mimeType}>`).join("");
  return result.isError ? { is_error: text } : text;
};
const late = (promise) => {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("nothing arrived")), 10000);
  });
  return Promise.race([promise, silence]).finally(() => clearTimeout(timer));
};

const operations = {
  era: async ({ client }) => (modern ? client.getNegotiatedProtocolVersion() : "legacy"),
  list: async ({ client }) => (await client.listTools()).tools.map((tool) => tool.name).sort(),
  call: async ({ client }, name, args) => said(await call(client, name, args)),
  big: async ({ client }, name, args) => said(await call(client, name, args)).length,
  read: async ({ client }, uri) => said(await client.readResource({ uri })),
  subscribe: async ({ client, updated }, uri, name, args) => {
    if (modern && client.getProtocolEra() === "modern") await client.listen({ resourceSubscriptions: [uri] });
    else await client.subscribeResource({ uri });
    await call(client, name, args);
    return late(updated);
  },
  cancel: async ({ client }, name, args) => {
    const controller = new AbortController();
    const started = Promise.withResolvers();
    const running = call(client, name, args, { signal: controller.signal, onprogress: started.resolve });
    running.catch(() => {});
    await late(started.promise);
    controller.abort();
    const ended = await running.then(() => "answered", () => "cancelled");
    return [ended, (await client.listTools()).tools.length > 0];
  },
};

const failed = (error) => ({ failed: { code: error?.code ?? null, text: String(error?.message ?? error), data: error?.data ?? null } });

async function cell(place, steps) {
  const client = modern ? new Client(info, { versionNegotiation: { mode } }) : new Client(info);
  const { options, release } = through(place);
  const outcomes = [];
  let way;
  try {
    const session = await listening(client);
    way = await transport(place, options);
    await client.connect(way);
    for (const [name, ...args] of steps) outcomes.push(await operations[name](session, ...args).then((ok) => ({ ok }), failed));
  } catch (error) {
    outcomes.push(failed(error));
  }
  await way?.terminateSession?.().catch(() => {});
  await client.close().catch(() => {});
  await release();
  return steps.map((_, n) => outcomes[Math.min(n, outcomes.length - 1)]);
}

process.on("unhandledRejection", (error) => console.error("unhandled:", error));
for await (const line of createInterface({ input: process.stdin })) {
  const { place, steps } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await cell(place, steps))}\n`);
}
process.exit(0);

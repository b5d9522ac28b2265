// A client made with the TypeScript SDK: client.mjs ts1|ts2 legacy|auto TRANSPORT STEP...
// TRANSPORT is JSON: {"command": [...]} or {"url": "...", "sse": true|false, "socket": "path of a Unix socket"}.
// A STEP is a JSON array of an operation and its arguments; one line of JSON is printed for each.
const [sdk, mode, where, ...steps] = process.argv.slice(2);
const place = JSON.parse(where);
const modern = sdk === "ts2";
const base = modern ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/index.js";
const { Client } = await import(base);
const info = { name: `conformance ${sdk}`, version: "1" };
const client = modern ? new Client(info, { versionNegotiation: { mode } }) : new Client(info);
const TIMEOUT = 20000;

async function through() {
  if (place.socket === undefined) return {};
  const { Agent, fetch } = await import("undici");
  const dispatcher = new Agent({ connect: { socketPath: place.socket } });
  return { fetch: (url, init) => fetch(url, { ...init, dispatcher }) };
}

async function transport() {
  if (place.command !== undefined) {
    const { StdioClientTransport } = await import(modern ? "@modelcontextprotocol/client/stdio" : "@modelcontextprotocol/sdk/client/stdio.js");
    const [command, ...args] = place.command;
    return new StdioClientTransport({ command, args, env: process.env, stderr: "ignore", maxBufferSize: 64 << 20 });
  }
  const options = await through();
  if (place.sse) {
    const { SSEClientTransport } = await import(modern ? base : "@modelcontextprotocol/sdk/client/sse.js");
    return new SSEClientTransport(new URL(place.url), options);
  }
  const { StreamableHTTPClientTransport } = await import(modern ? base : "@modelcontextprotocol/sdk/client/streamableHttp.js");
  return new StreamableHTTPClientTransport(new URL(place.url), options);
}

let heard = () => {};
const updated = new Promise((resolve) => {
  heard = resolve;
});
if (modern) client.setNotificationHandler("notifications/resources/updated", (told) => heard(told.params.uri));
else {
  const { ResourceUpdatedNotificationSchema } = await import("@modelcontextprotocol/sdk/types.js");
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, (told) => heard(told.params.uri));
}

const call = (name, args, options = {}) => (modern ? client.callTool({ name, arguments: args }, { timeout: TIMEOUT, ...options }) : client.callTool({ name, arguments: args }, undefined, { timeout: TIMEOUT, ...options }));
const said = (result) => {
  const text = (result.content ?? result.contents ?? []).map((item) => item.text ?? `<${item.type ?? item.mimeType}>`).join("");
  return result.isError ? { is_error: text } : text;
};
const late = (promise) => Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error("nothing arrived")), 10000))]);

const operations = {
  era: async () => (modern ? client.getNegotiatedProtocolVersion() : "legacy"),
  list: async () => (await client.listTools()).tools.map((tool) => tool.name).sort(),
  call: async (name, args) => said(await call(name, args)),
  big: async (name, args) => said(await call(name, args)).length,
  read: async (uri) => said(await client.readResource({ uri })),
  subscribe: async (uri, name, args) => {
    if (modern && client.getProtocolEra() === "modern") await client.listen({ resourceSubscriptions: [uri] });
    else await client.subscribeResource({ uri });
    await call(name, args);
    return late(updated);
  },
  cancel: async (name, args) => {
    const controller = new AbortController();
    const started = Promise.withResolvers();
    const running = call(name, args, { signal: controller.signal, onprogress: started.resolve });
    running.catch(() => {});
    await late(started.promise);
    controller.abort();
    const ended = await running.then(() => "answered", () => "cancelled");
    return [ended, (await client.listTools()).tools.length > 0];
  },
};

const lines = [];
const failed = (error) => ({ failed: { code: error?.code ?? null, text: String(error?.message ?? error), data: error?.data ?? null } });
try {
  await client.connect(await transport());
  for (const each of steps) {
    const [name, ...args] = JSON.parse(each);
    try {
      lines.push({ ok: await operations[name](...args) });
    } catch (error) {
      lines.push(failed(error));
    }
  }
} catch (error) {
  lines.push(failed(error));
}
process.stdout.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(""), () => process.exit(0));

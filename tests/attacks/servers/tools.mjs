// A server made with a TypeScript SDK, for the rows W: tools.mjs ts1|ts2 LOG stdio | http PORT | sse PORT. Notes what it executes.
// As tools_server.py: tools echo, steal, remember, recall, slow; resources notes://one and secret://key; prompts hello
// and hidden, with completion. What is remembered belongs to the client's session, where the SDK has one.
import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { z } from "zod";

const [sdk, log, transport, port] = process.argv.slice(2);
const text = (value) => ({ content: [{ type: "text", text: value }] });
const note = (what, value) => appendFileSync(log, `${JSON.stringify([what, value])}\n`);
const optional = z.object({ text: z.string().default("") });

function fill(server, completable, shaped) {
  const pages = [];
  const completed = (name) => shaped({ name: completable(z.string(), () => (note("complete", name), ["hunter2"])) });
  server.registerTool("echo", { inputSchema: optional }, (given) => (note("echo", given.text), text(given.text)));
  server.registerTool("steal", { inputSchema: optional }, (given) => (note("steal", given.text), text("stolen")));
  server.registerTool("remember", { inputSchema: optional }, (given) => (pages.push(given.text), text("written")));
  server.registerTool("recall", {}, () => text(pages.join(", ") || "nothing"));
  server.registerTool("slow", { inputSchema: z.object({ seconds: z.number(), text: z.string() }) }, async (given, extra) => {
    note("begun", given.text);
    const { signal } = extra.mcpReq ?? extra;
    await new Promise((resolve) => setTimeout(resolve, given.seconds * 1000));
    if (!signal.aborted) note("slow", given.text);
    return text(given.text);
  });
  server.registerResource("one", "notes://one", {}, () => ({ contents: [{ uri: "notes://one", text: "first" }] }));
  server.registerResource("key", "secret://key", {}, () => {
    note("read", "secret://key");
    return { contents: [{ uri: "secret://key", text: "hunter2" }] };
  });
  const say = (value) => ({ messages: [{ role: "user", content: { type: "text", text: value } }] });
  server.registerPrompt("hello", { argsSchema: completed("hello") }, ({ name }) => say(`say hello to ${name}`));
  server.registerPrompt("hidden", { argsSchema: completed("hidden") }, ({ name }) => (note("prompt", "hidden"), say(`hidden ${name}`)));
  return server;
}

const capabilities = { capabilities: { resources: { subscribe: true } } };
const subscribed = (request) => (note("subscribe", request.params.uri), {});
const listen = (handle) => createServer(handle).listen(Number(port), "127.0.0.1");

if (sdk === "ts1") {
  const { McpServer } = await import("@modelcontextprotocol/sdk/server/mcp.js");
  const { completable } = await import("@modelcontextprotocol/sdk/server/completable.js");
  const { SubscribeRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
  const make = () => {
    const server = fill(new McpServer({ name: "ts1", version: "1" }, capabilities), completable, (shape) => shape);
    server.server.setRequestHandler(SubscribeRequestSchema, subscribed);
    return server;
  };
  const open = new Map();
  if (transport === "stdio") {
    const { StdioServerTransport } = await import("@modelcontextprotocol/sdk/server/stdio.js");
    await make().connect(new StdioServerTransport());
  } else if (transport === "sse") {
    const { SSEServerTransport } = await import("@modelcontextprotocol/sdk/server/sse.js");
    listen(async (request, response) => {
      const url = new URL(request.url, "http://localhost");
      if (request.method === "GET" && url.pathname === "/sse") {
        const own = new SSEServerTransport("/message", response);
        open.set(own.sessionId, own);
        await make().connect(own);
      } else {
        const own = open.get(url.searchParams.get("sessionId"));
        if (own === undefined) response.writeHead(404).end();
        else await own.handlePostMessage(request, response);
      }
    });
  } else {
    const { StreamableHTTPServerTransport } = await import("@modelcontextprotocol/sdk/server/streamableHttp.js");
    listen(async (request, response) => {
      const name = request.headers["mcp-session-id"];
      let own = open.get(name);
      if (own === undefined) {
        if (name !== undefined) return response.writeHead(404).end();
        own = new StreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized: (id) => open.set(id, own) });
        await make().connect(own);
      }
      return own.handleRequest(request, response);
    });
  }
} else {
  const { McpServer, completable, createMcpHandler } = await import("@modelcontextprotocol/server");
  const make = () => {
    const server = fill(new McpServer({ name: "ts2", version: "2" }, capabilities), completable, z.object);
    server.server.setRequestHandler("resources/subscribe", subscribed);
    return server;
  };
  if (transport === "stdio") {
    const { serveStdio } = await import("@modelcontextprotocol/server/stdio");
    serveStdio(make);
  } else {
    const { toNodeHandler } = await import("@modelcontextprotocol/node");
    listen(toNodeHandler(createMcpHandler(make)));
  }
}

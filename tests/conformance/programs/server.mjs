// A small server made with the TypeScript SDK: server.mjs ts1|ts2 stdio|http|sse [PORT].
// Tools echo, big, fail, slow (reports progress) and touch (tells subscribers of notes://one); resource notes://one.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { z } from "zod";

const [sdk, transport, port] = process.argv.slice(2);
const NOTE = "notes://one";
const text = (value) => ({ content: [{ type: "text", text: value }] });

function fill(server, touched) {
  server.registerTool("echo", { description: "Echo", inputSchema: z.object({ message: z.string() }) }, ({ message }) => text(`Echo: ${message}`));
  server.registerTool("big", { description: "A large text", inputSchema: z.object({ size: z.number() }) }, ({ size }) => text("x".repeat(size)));
  server.registerTool("fail", { description: "Fail" }, () => {
    throw new Error("it went wrong");
  });
  server.registerTool("slow", { description: "Wait", inputSchema: z.object({ seconds: z.number() }) }, async ({ seconds }, extra) => {
    const request = extra.mcpReq ?? extra;
    const progressToken = request._meta?.progressToken;
    const notify = extra.mcpReq?.notify ?? extra.sendNotification;
    if (progressToken !== undefined) await notify({ method: "notifications/progress", params: { progressToken, progress: 1, total: 2 } });
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    return text("done");
  });
  server.registerTool("touch", { description: "Tell subscribers" }, async () => {
    await touched(server);
    return text("touched");
  });
  server.registerResource("one", NOTE, { mimeType: "text/plain" }, () => ({ contents: [{ uri: NOTE, text: "first" }] }));
  return server;
}

const listen = (handle) => createServer(handle).listen(Number(port), "127.0.0.1");

if (sdk === "ts1") {
  const { McpServer } = await import("@modelcontextprotocol/sdk/server/mcp.js");
  const { SubscribeRequestSchema, UnsubscribeRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
  const make = () => {
    const server = fill(new McpServer({ name: "ts1", version: "1" }, { capabilities: { resources: { subscribe: true } } }), (own) => own.server.sendResourceUpdated({ uri: NOTE }));
    server.server.setRequestHandler(SubscribeRequestSchema, () => ({}));
    server.server.setRequestHandler(UnsubscribeRequestSchema, () => ({}));
    return server;
  };
  if (transport === "stdio") {
    const { StdioServerTransport } = await import("@modelcontextprotocol/sdk/server/stdio.js");
    await make().connect(new StdioServerTransport());
  } else if (transport === "sse") {
    const { SSEServerTransport } = await import("@modelcontextprotocol/sdk/server/sse.js");
    const open = new Map();
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
    const open = new Map();
    listen(async (request, response) => {
      let own = open.get(request.headers["mcp-session-id"]);
      if (own === undefined) {
        if (request.headers["mcp-session-id"] !== undefined) return response.writeHead(404).end();
        own = new StreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized: (id) => open.set(id, own) });
        await make().connect(own);
      }
      return own.handleRequest(request, response);
    });
  }
} else {
  const { McpServer, createMcpHandler } = await import("@modelcontextprotocol/server");
  const fresh = (touched) => {
    const server = fill(new McpServer({ name: "ts2", version: "2" }, { capabilities: { resources: { subscribe: true } } }), touched);
    server.server.setRequestHandler("resources/subscribe", () => ({}));
    server.server.setRequestHandler("resources/unsubscribe", () => ({}));
    return server;
  };
  if (transport === "stdio") {
    const { serveStdio } = await import("@modelcontextprotocol/server/stdio");
    serveStdio(() => fresh((own) => own.server.sendResourceUpdated({ uri: NOTE })));
  } else {
    const { toNodeHandler } = await import("@modelcontextprotocol/node");
    const handler = createMcpHandler(() => fresh(() => handler.notify.resourceUpdated(NOTE)));
    listen(toNodeHandler(handler));
  }
}

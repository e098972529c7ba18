// The HTTP server of a worker. It runs in Artillery's main thread, and plugins register its paths. Mounted as
// /opt/loadtest/lib/server.js
//
// The kubelet, the operator and Prometheus are its clients, but every pod of the cluster may connect. So the work for a request
// and the number of connections are bounded, and no other client can displace a probe of the kubelet.
'use strict';

const http = require('node:http');

// A connection belongs to one group at a time: `waiting` until its request has arrived, then `probes` or `others`. If a group is
// full, its oldest connection is closed. A probe of the kubelet, or a reader that is not slow, is among the newest.
const MAX_CONNECTIONS = { waiting: 128, probes: 32, others: 32 };
// Fewer than the waiting connections, so that a request which arrives together with its connection is read before the connection
// is closed for newer ones.
const BACKLOG = 64;
// From the connection to the end of the response, except for probes.
const DEADLINE_MS = 5000;

class Server {
  constructor(port) {
    Object.assign(this, { port, isOpen: false, error: undefined, routes: new Map(), failureHandlers: [] });
    this.groups = { waiting: new Set(), probes: new Set(), others: new Set() };
    // {group, timer} of each socket.
    this.connections = new Map();
  }

  /**
   * Registers a path. `respond(response)` answers its GET requests and may take its time. `headers` are those of all responses
   * for this path. The responses of probes have no deadline.
   */
  route(path, respond, { headers = {}, isProbe = false } = {}) {
    this.routes.set(path, { respond, headers, isProbe });
  }

  /** Calls `handler(error)` if the port cannot be opened. */
  onFailure(handler) {
    this.failureHandlers.push(handler);
    if (this.error) handler(this.error);
  }

  /** Opens the port, once. It does not keep the process alive. */
  open() {
    if (this.isOpen) return;
    this.isOpen = true;
    const server = http.createServer((request, response) => this.serve(request, response));
    server.on('connection', (socket) => this.accept(socket));
    server.on('clientError', (_error, socket) => socket.destroy());
    server.on('error', (error) => {
      this.error = error;
      for (const handler of this.failureHandlers) handler(error);
    });
    server.unref();
    // Without an address this binds immediately: connections wait in the backlog while Artillery loads.
    server.listen({ port: this.port, backlog: BACKLOG });
  }

  accept(socket) {
    socket.unref();
    const timer = setTimeout(() => socket.destroy(), DEADLINE_MS);
    timer.unref();
    this.connections.set(socket, { timer });
    this.move(socket, 'waiting');
    socket.on('close', () => this.forget(socket));
  }

  forget(socket) {
    const connection = this.connections.get(socket);
    if (!connection) return;
    clearTimeout(connection.timer);
    this.groups[connection.group].delete(socket);
    this.connections.delete(socket);
  }

  move(socket, group) {
    const connection = this.connections.get(socket);
    this.groups[connection.group]?.delete(socket);
    connection.group = group;
    this.groups[group].add(socket);
    if (this.groups[group].size <= MAX_CONNECTIONS[group]) return;
    const [oldest] = this.groups[group];
    this.forget(oldest);
    oldest.destroy();
  }

  serve(request, response) {
    const { socket } = request;
    const connection = this.connections.get(socket);
    // A client may have sent several requests at once.
    if (connection?.group !== 'waiting') {
      socket.destroy();
      return;
    }
    const route = this.routes.get(request.url);
    const isProbe = route?.isProbe && request.method === 'GET';
    this.move(socket, isProbe ? 'probes' : 'others');
    if (isProbe) clearTimeout(connection.timer);
    response.on('error', () => {});
    response.setHeader('connection', 'close');
    for (const [name, value] of Object.entries(route?.headers ?? {})) response.setHeader(name, value);
    if (route && request.method === 'GET') this.respond(route, response);
    else response.writeHead(404).end();
  }

  // An error must not affect the load.
  async respond(route, response) {
    try {
      await route.respond(response);
    } catch {
      if (!response.headersSent) response.writeHead(500);
      response.end();
    }
  }
}

/** The port number in an environment variable. Throws if it is none. */
function portFromEnv(name, { [name]: text }) {
  const port = Number(text || NaN);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`${name} is ${text}, expected a port number`);
  return port;
}

/** The server of this process, on port LOADTEST_PORT. It is not open yet, unless another plugin has opened it. */
function sharedServer(env = process.env) {
  // Node.js loads a file twice if it is required by two paths.
  const key = Symbol.for('loadtest.server');
  globalThis[key] ??= new Server(portFromEnv('LOADTEST_PORT', env));
  return globalThis[key];
}

module.exports = { MAX_CONNECTIONS, portFromEnv, Server, sharedServer };

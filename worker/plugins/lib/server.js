// The HTTP server of a worker. It runs in Artillery's main thread, and plugins register its paths. Mounted as
// /opt/loadtest/lib/server.js
//
// The kubelet, the operator and Prometheus are its clients, but every pod of the cluster may connect. So the work for a request
// and the number of connections are bounded, and no other client can displace a probe of the kubelet. Each connection serves one
// GET request. That needs so little of HTTP that it is implemented here: Node.js's own server takes about twice the CPU time.
'use strict';

const net = require('node:net');

// A connection belongs to one group at a time: `waiting` until its request has arrived, then `probes` or `others`. If a group is
// full, its oldest connection is closed. A probe of the kubelet, or a reader that is not slow, is among the newest.
const MAX_CONNECTIONS = { waiting: 128, probes: 32, others: 32 };
// Fewer than the waiting connections, so that a request which arrives together with its connection is read before the connection
// is closed for newer ones.
const BACKLOG = 64;
// From the connection to the end of the response, except for probes.
const DEADLINE_MS = 5000;
const MAX_HEAD_BYTES = 8192;
// With a body, which is ignored.
const MAX_REQUEST_BYTES = 65_536;
const REQUEST_LINE = /^([A-Z]+) (\S+) HTTP\/1\.[01]\r\n/;
const END_OF_HEAD = '\r\n\r\n';
const REASONS = { 200: 'OK', 204: 'No Content', 404: 'Not Found', 500: 'Internal Server Error' };

/** The response to one request. It ends the connection. */
class Response {
  constructor(socket, headers) {
    Object.assign(this, { socket, headers, isSent: false });
  }

  /** Sends the response, whose body is a text or a buffer. */
  send(status, body = '', headers = {}) {
    const { socket } = this;
    this.isSent = true;
    const length = status === 204 ? {} : { 'content-length': Buffer.byteLength(body) };
    const all = { date: new Date().toUTCString(), connection: 'close', ...this.headers, ...headers, ...length };
    const fields = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.cork();
    socket.write(`HTTP/1.1 ${status} ${REASONS[status]}\r\n${fields.join('')}\r\n`);
    socket.write(body);
    socket.uncork();
    socket.destroySoon();
  }

  onClose(handler) {
    this.socket.on('close', handler);
  }
}

class Server {
  constructor(port) {
    Object.assign(this, { port, isOpen: false, error: undefined, routes: new Map(), failureHandlers: [] });
    this.groups = { waiting: new Set(), probes: new Set(), others: new Set() };
    // {group, timer, head, size} of each socket.
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
    const server = net.createServer((socket) => this.accept(socket));
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
    this.connections.set(socket, { timer, head: '', size: 0 });
    this.move(socket, 'waiting');
    socket.on('data', (chunk) => {
      try {
        this.read(socket, chunk);
      } catch {
        // An error must not end the process.
        socket.destroy();
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => this.forget(socket));
  }

  read(socket, chunk) {
    const connection = this.connections.get(socket);
    if (!connection) return;
    connection.size += chunk.length;
    if (connection.size > MAX_REQUEST_BYTES) socket.destroy();
    if (connection.group !== 'waiting' || socket.destroyed) return;
    const from = Math.max(0, connection.head.length - END_OF_HEAD.length);
    connection.head += chunk.toString('latin1', 0, MAX_HEAD_BYTES);
    if (connection.head.includes(END_OF_HEAD, from)) this.serve(socket, connection);
    else if (connection.head.length >= MAX_HEAD_BYTES) socket.destroy();
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

  serve(socket, connection) {
    const [, method, path] = REQUEST_LINE.exec(connection.head) ?? [];
    connection.head = '';
    if (!method) {
      socket.destroy();
      return;
    }
    const route = this.routes.get(path);
    const isKnown = route && method === 'GET';
    const isProbe = isKnown && route.isProbe;
    this.move(socket, isProbe ? 'probes' : 'others');
    if (isProbe) clearTimeout(connection.timer);
    const response = new Response(socket, route?.headers);
    if (isKnown) this.respond(route, response);
    else response.send(404);
  }

  // An error must not affect the load.
  async respond(route, response) {
    try {
      await route.respond(response);
    } catch {
      if (!response.isSent) response.send(500);
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

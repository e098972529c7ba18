// The tests' target on loopback: answers HTTP, takes metrics for any reporter, speaks WebSocket and enough of Socket.IO.
// /page is a page for a browser. Every request is a line of the log, for the tests to read.
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const dgram = require('node:dgram');
const zlib = require('node:zlib');

const log = (line) => fs.appendFileSync(process.env.LOG, `${line}\n`);

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let body = Buffer.concat(chunks);
  if (request.headers['content-encoding'] === 'gzip') body = zlib.gunzipSync(body);
  log(`${request.method} ${request.url} ${request.headers['content-type'] ?? ''} ${body.toString('latin1').replace(/\s+/g, ' ').slice(0, 400)}`);
  if (request.url.startsWith('/page')) {
    response.setHeader('content-type', 'text/html');
    return response.end(fs.readFileSync(`${__dirname}/page.html`));
  }
  response.setHeader('content-type', 'application/json');
  response.statusCode = request.url.startsWith('/status/') ? Number(request.url.slice(8)) : 200;
  response.end('{"id": 7}');
});

// Frames of up to 125 bytes, as all of the tests' are.
const frame = (text) => Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]);
server.on('upgrade', (request, socket) => {
  const key = crypto.createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
  const io = request.url.startsWith('/socket.io/');
  if (io) socket.write(frame('0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000}'));
  let rest = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 6) {
      const length = rest[1] & 0x7f;
      if (rest.length < 6 + length) return;
      const text = Buffer.from(rest.subarray(6, 6 + length)).map((byte, i) => byte ^ rest[2 + (i % 4)]).toString();
      const closing = (rest[0] & 0x0f) === 8;
      rest = rest.subarray(6 + length);
      if (closing) return socket.end(Buffer.from([0x88, 0]));
      log(`WS ${request.url} ${text}`);
      if (io && text === '40') socket.write(frame('40{"sid":"b"}'));
      else if (io && text.startsWith('42')) socket.write(frame('42["answer","pong"]'));
      else if (!io) socket.write(frame(text));
    }
  });
});
server.listen(8080, '127.0.0.1', () => log('ready'));
dgram.createSocket('udp4').on('message', (m) => log(`UDP ${m}`)).bind(8125, '127.0.0.1');

// A page, and the two paths that it fetches. /requests returns the number of answered requests by path.
const fs = require('node:fs');
const http = require('node:http');

const requests = {};
const answers = {
  '/': ['text/html; charset=utf-8', fs.readFileSync(`${__dirname}/page.html`)],
  '/products': ['application/json', JSON.stringify(['Tea', 'Coffee', 'Milk'])],
  '/basket': ['application/json', JSON.stringify({ count: 1 })],
  '/healthz': ['text/plain', 'ok\n'],
};

const server = http.createServer((request, response) => {
  const [path] = request.url.split('?');
  if (path === '/requests') {
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(requests) + '\n');
  }
  if (path !== '/healthz') requests[path] = (requests[path] ?? 0) + 1;
  const [type, body] = answers[path] ?? ['text/plain', 'not found\n'];
  response.statusCode = answers[path] ? 200 : 404;
  response.setHeader('content-type', type);
  response.end(body);
});
server.listen(8080);
process.on('SIGTERM', () => process.exit(0));

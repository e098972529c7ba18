// Answers every request. /requests returns the number of answered requests by path. With ?delay=MS the answer takes as long, and with
// ?delay=MS&after=S only from S seconds after the first request of this path.
const http = require('node:http');

const requests = {};
const firstRequests = {};

const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/requests') {
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(requests) + '\n');
  }
  if (path !== '/healthz') requests[path] = (requests[path] ?? 0) + 1;
  firstRequests[path] ??= Date.now();
  const query = new URLSearchParams(request.url.split('?')[1]);
  const isSlow = Date.now() - firstRequests[path] >= 1000 * query.get('after');
  setTimeout(() => response.end('ok\n'), isSlow ? query.get('delay') : 0);
});
server.listen(8080);
process.on('SIGTERM', () => process.exit(0));

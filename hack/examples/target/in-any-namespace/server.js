// Answers every request. /requests returns the number of answered requests by path.
const http = require('node:http');

const requests = {};

const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/requests') {
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(requests) + '\n');
  }
  if (path !== '/healthz') requests[path] = (requests[path] ?? 0) + 1;
  response.end('ok\n');
});
server.listen(8080);
process.on('SIGTERM', () => process.exit(0));

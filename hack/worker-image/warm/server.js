require('node:http')
  .createServer((request, response) => {
    request.resume();
    response.setHeader('set-cookie', 'a=b');
    response.setHeader('content-type', 'application/json');
    response.end('{"id": 1, "name": "x"}');
  })
  .listen(process.env.WARM_PORT, '127.0.0.1');

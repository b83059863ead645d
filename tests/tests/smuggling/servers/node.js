// Counts what it sees: a line on stdout for each request that came whole, `BAD …` for what is no request.
'use strict';
const http = require('node:http');
const [host, port] = process.argv.slice(2);

const server = http.createServer((request, response) => {
  let length = 0;
  request.on('data', (data) => { length += data.length; });
  request.on('end', () => {
    const seen = `${request.method} ${request.url} ${length}`;
    console.log(seen);
    response.setHeader('x-seen', seen);
    response.end(`seen=${seen}`);
  });
  request.on('error', () => {});
});
server.keepAliveTimeout = 60000;
server.on('clientError', (error, socket) => {
  // A connection that ends inside a request is the gateway giving it up.
  if (!['ECONNRESET', 'EPIPE', 'HPE_INVALID_EOF_STATE'].includes(error.code)) {
    console.log(`BAD ${error.code}`);
  }
  socket.destroy();
});
server.listen(Number(port), host, () => console.log('READY'));

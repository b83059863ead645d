// WebSockets by HTTP/2 in clear (RFC 8441): echoes messages; says of each stream what it asks for.
'use strict';
const http2 = require('node:http2');
const [host, port, takes] = process.argv.slice(2);

function frame(opcode, payload) {
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, payload.length]) : Buffer.alloc(10);
  if (payload.length >= 126) {
    head[0] = 0x80 | opcode;
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(payload.length), 2);
  }
  return Buffer.concat([head, payload]);
}

// The first frame of what a client sent, and how long it is.
function first(bytes) {
  if (bytes.length < 2) return null;
  let length = bytes[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return null;
    length = bytes.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (bytes.length < 10) return null;
    length = Number(bytes.readBigUInt64BE(2));
    at = 10;
  }
  if (bytes.length < at + 4 + length) return null;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < payload.length; i += 1) payload[i] ^= mask[i % 4];
  return { opcode: bytes[0] & 0xf, payload, end: at + 4 + length };
}

const server = http2.createServer({ settings: { enableConnectProtocol: takes === 'websockets' } });
server.on('stream', (stream, headers) => {
  console.log(JSON.stringify(headers));
  stream.on('error', () => {});
  if (headers[':method'] !== 'CONNECT' || headers[':path'] === '/no') {
    stream.respond({ ':status': headers[':path'] === '/no' ? 403 : 200 });
    stream.end('plain');
    return;
  }
  const chosen = headers['sec-websocket-protocol'];
  stream.respond({ ':status': 200, ...(chosen && { 'sec-websocket-protocol': chosen }) });
  let unread = Buffer.alloc(0);
  stream.on('data', (data) => {
    unread = Buffer.concat([unread, data]);
    for (let found = first(unread); found; found = first(unread)) {
      unread = unread.subarray(found.end);
      if (headers[':path'] === '/reset') stream.close(http2.constants.NGHTTP2_CANCEL);
      else if (found.opcode === 9) stream.write(frame(10, found.payload));
      else stream.write(frame(found.opcode, found.payload));
      if (found.opcode === 8) stream.end();
    }
  });
  stream.on('end', () => stream.end());
});
server.listen(Number(port), host, () => console.log('READY'));

// ws, as its documentation shows: broadcast by a loop over the clients.
const { WebSocketServer, WebSocket } = require('ws');

const mode = process.argv[2];
const ACK = 32;
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 }, () => {
  console.log(`ready 127.0.0.1:${server.address().port}`);
});

server.on('connection', (client, request) => {
  client.room = request.url;
  client.on('error', () => {});
  client.on('message', (data) => {
    if (mode === 'echo') {
      client.send(data, { binary: true });
      return;
    }
    server.clients.forEach((other) => {
      if (other.readyState !== WebSocket.OPEN) return;
      if (other === client && mode.startsWith('others')) return;
      if (mode === 'rooms' && other.room !== client.room) return;
      other.send(data, { binary: true });
    });
    if (mode.endsWith('ack')) client.send(data.subarray(0, ACK), { binary: true });
  });
});

// socket.io, with its rooms and broadcasts.
const { createServer } = require('http');
const { Server } = require('socket.io');

const mode = process.argv[2];
const ACK = 32;
const http = createServer();
const io = new Server(http, { transports: ['websocket'] });

io.on('connection', (socket) => {
  const room = socket.handshake.query.room;
  if (mode === 'rooms') socket.join(room);
  socket.on('message', (text) => {
    switch (mode) {
      case 'echo':
        socket.emit('message', text);
        break;
      case 'all':
      case 'all-ack':
        io.emit('message', text);
        break;
      case 'rooms':
        io.to(room).emit('message', text);
        break;
      default:
        socket.broadcast.emit('message', text);
    }
    if (mode.endsWith('ack')) socket.emit('message', text.slice(0, ACK));
  });
});
http.listen(0, '127.0.0.1', () => console.log(`ready 127.0.0.1:${http.address().port}`));

// What decrypts for the stand-in backend: TLS 1.3, as a proxy in front of a real backend does it.
import fs from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';

export class TlsFront {
  /** Connections that were opened, and handshakes that were finished. */
  connections = 0;
  handshakes = 0;

  /** Listens at `port`; the stand-in does at the next one. */
  static async start({ 'tls-cert': cert, 'tls-key': key }, port) {
    const front = new TlsFront();
    const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), minVersion: 'TLSv1.3' };
    front.server = tls.createServer(options, (secure) => {
      front.handshakes += 1;
      const plain = net.connect(port + 1, '127.0.0.1');
      const end = () => {
        secure.destroy();
        plain.destroy();
      };
      for (const socket of [secure, plain]) socket.on('error', end).on('close', end);
      secure.pipe(plain).pipe(secure);
    });
    front.server.on('connection', () => (front.connections += 1));
    front.server.on('tlsClientError', () => {}); // the board says why
    await new Promise((go, fail) => front.server.on('error', fail).listen(port, '127.0.0.1', go));
    return front;
  }

  stop() {
    this.server.close();
  }
}

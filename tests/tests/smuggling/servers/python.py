"""Counts what it sees: a line on stdout for each request that came whole, `BAD …` for what is no request."""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        # Every method is taken.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        length = self.body()
        if length is None:
            self.close_connection = True
            return
        seen = f"{self.command} {self.path} {length}"
        say(seen)
        text = f"seen={seen}".encode("latin-1")
        self.send_response(200)
        self.send_header("x-seen", seen)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def body(self):
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self.chunks()
        length = int(self.headers.get("content-length") or 0)
        return length if len(self.rfile.read(length)) == length else None

    def chunks(self):
        total = 0
        while True:
            line = self.rfile.readline()
            if not line.strip():
                return None
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            if len(self.rfile.read(size + 2)) != size + 2:
                return None
            total += size
        while True:
            line = self.rfile.readline()
            if not line:
                return None
            if line in (b"\r\n", b"\n"):
                return total

    def send_error(self, code, message=None, explain=None):
        say(f"BAD {code} {message}")
        super().send_error(code, message, explain)

    def log_message(self, format, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def server_bind(self):
        # The base class asks for the host's name, which nobody answers here.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address

    def handle_error(self, request, client_address):
        # A connection that ends inside a request is the gateway giving it up.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            say(f"BAD {sys.exc_info()[1]!r}")


server = Server((sys.argv[1], int(sys.argv[2])), Handler)
say("READY")
server.serve_forever()

"""A role for tests of the supervisor: answers GET /ready on ORCHESTRATOR_PORT, with its process id."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode("ascii"))


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ["ORCHESTRATOR_PORT"])), Handler).serve_forever()

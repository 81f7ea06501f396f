"""A web server that compresses and decompresses pictures: the standard library and linocut.

    python server.py 8000
    curl --data-binary @photo.png "http://localhost:8000/compress?quality=60" -o photo.lino
    curl --data-binary @photo.lino http://localhost:8000/decompress -o photo.png

One codec serves all threads. What comes in is untrusted: its size is limited before it is read, its
pixels before they are decoded, and no more pictures than cores are worked on at once. Put a server
that speaks TLS in front of it.
"""

from __future__ import annotations

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

from linocut import Codec, LinocutError
from linocut.codec.picture_files import Target, compress_picture, decompress_picture
from linocut.pictures.image import encode_picture, read_picture

MOST_BYTES = 32 << 20
MOST_PIXELS = 40_000_000
SECONDS_WITHOUT_DATA = 30


class Handler(BaseHTTPRequestHandler):
    """POST /compress?quality=Q and POST /decompress."""

    timeout = SECONDS_WITHOUT_DATA
    codec = Codec.load()
    at_once = threading.BoundedSemaphore(os.cpu_count() or 1)

    def do_POST(self) -> None:
        """One picture in, one out, or a line that says what is wrong."""
        address = urlsplit(self.path)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.answer(411, "text/plain", b"Content-Length is missing\n")
        elif int(length) > MOST_BYTES:
            self.answer(413, "text/plain", b"at most %d bytes\n" % MOST_BYTES)
        elif address.path not in {"/compress", "/decompress"}:
            self.answer(404, "text/plain", b"POST /compress or /decompress\n")
        else:
            content = self.rfile.read(int(length))
            try:
                with self.at_once:
                    if address.path == "/compress":
                        self.answer(200, "image/x-linocut", self.compress(content, address.query))
                    else:
                        self.answer(200, "image/png", self.decompress(content))
            except (LinocutError, ValueError) as error:
                self.answer(422, "text/plain", f"{error}\n".encode())

    def compress(self, content: bytes, query: str) -> bytes:
        """A .lino file of any picture."""
        quality = float(parse_qs(query).get("quality", ["50"])[0])
        picture = read_picture(BytesIO(content), name="picture", max_pixels=MOST_PIXELS)
        return compress_picture(self.codec, picture, Target("quality", quality), effort=1)[0]

    def decompress(self, content: bytes) -> bytes:
        """A PNG file of a .lino file."""
        picture = decompress_picture(self.codec, content, max_pixels=MOST_PIXELS)
        return encode_picture(picture, "PNG")[0]

    def answer(self, status: int, kind: str, body: bytes) -> None:
        """Send a whole response."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()

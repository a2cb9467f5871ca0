"""A foreign LMTP 1.0 server: it answers every GENERATE with one token again and again, until the client goes."""

import contextlib
import json
import threading
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

TOKEN = 7


class LmtpServer:
    """`received` are the GENERATE payloads, with the `connection` each came by.

    `left` is set when a client that was being served has gone.
    """

    def __init__(self):
        self.received = []
        self.left = threading.Event()

    def __call__(self, connection):
        with contextlib.suppress(ConnectionClosed):
            while True:
                verb, payload = connection.recv().split(" ", 1)
                operation = json.loads(payload)
                if verb == "MODEL_INFO":
                    answer = {"stream_id": operation["stream_id"], "model_info": {"model": "foreign"}}
                    connection.send(f"MSG {json.dumps([answer])}")
                else:
                    self.received.append(operation | {"connection": connection.id})
                    self._generate(connection, operation)

    def _generate(self, connection, operation):
        try:
            for count in range(1, operation["max_tokens"] + 1):
                reason = "length" if count == operation["max_tokens"] else None
                item = {
                    "token": TOKEN,
                    "stream_id": operation["stream_id"],
                    "logprob": -0.5,
                    "finish_reason": reason,
                    "top_logprobs": {str(TOKEN): -0.5},
                }
                connection.send(f"TOKEN {json.dumps([item])}")
                time.sleep(0.001)
        except ConnectionClosed:
            self.left.set()
            raise


@contextlib.contextmanager
def running():
    """Serve on a free port of this machine; yield the server and its URL."""
    handler = LmtpServer()
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield handler, f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(10)

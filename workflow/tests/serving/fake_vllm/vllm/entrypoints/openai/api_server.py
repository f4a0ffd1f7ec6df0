"""Starts like vLLM's API server, by the same flags, without any model.

FAKE_VLLM says what it does: serve (default), die, stall, stranger (it lists other models),
sick (healthy once, then its engine is dead),
steal (the first start finds its port taken; FAKE_VLLM_MARK is a file that remembers it),
play (it answers chat requests too, see serving/model_double.py).
"""

import argparse
import http.server
import json
import os
import sys
import time
from pathlib import Path

LOG_OF_A_DEATH = """\
(APIServer pid=1) INFO 11-21 09:37:00 [api_utils.py:276] initializing
(EngineCore pid=2) ERROR 11-21 09:37:01 [core.py:9] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 09:37:01 [core.py:9]   File "kv.py", line 1, in check
(EngineCore pid=2) ERROR 11-21 09:37:01 [core.py:9] ValueError: To serve at least one request \
with 16384 tokens, 3.00 GiB KV cache is needed
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--port", type=int)
    parser.add_argument("--model")
    arguments, _ = parser.parse_known_args()
    behaviour = os.environ.get("FAKE_VLLM", "serve")
    print("arguments:", json.dumps(sys.argv[1:]), flush=True)
    if behaviour == "die":
        sys.exit(LOG_OF_A_DEATH)
    if behaviour == "stall":
        time.sleep(120)
    if behaviour == "steal":
        mark = Path(os.environ["FAKE_VLLM_MARK"])
        if not mark.exists():
            mark.touch()
            sys.exit("OSError: [Errno 98] Address already in use")
    if behaviour == "play":
        # Only here: of this project's tests, which are on the path of who asks for it.
        from serving.model_double import play  # noqa: PLC0415

        play(arguments.served_model_name, arguments.model, arguments.port)
    names = ["other"] if behaviour == "stranger" else arguments.served_model_name

    class Handler(http.server.BaseHTTPRequestHandler):
        num_health_checks = 0

        def do_GET(self) -> None:
            Handler.num_health_checks += self.path == "/health"
            dead = behaviour == "sick" and Handler.num_health_checks > 1
            self.send_response(503 if dead else 200)
            self.end_headers()
            models = {"data": [{"id": name} for name in names]}
            self.wfile.write(json.dumps(models if "models" in self.path else {}).encode())

        def log_message(self, *_: object) -> None:
            pass

    http.server.HTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()

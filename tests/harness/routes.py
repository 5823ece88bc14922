"""Plain HTTP to the pack's routes, so that each request is exactly what a test writes."""

import http.client
import json
import time

SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Routes:
    """Asks one server."""

    def __init__(self, server):
        self.server = server

    def ask(self, method, path, *, body=None, headers=None, prefix="/api/masked_lora"):
        """Status, headers and parsed body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, prefix + path, body=body, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json else content

    def get(self, path):
        status, headers, content = self.ask("GET", path)
        assert status == 200, content
        assert {name: headers[name] for name in SAFE} == SAFE
        return content

    def post(self, path, body=b"{}", **headers):
        status, answered, content = self.ask(
            "POST", path, body=body, headers={"Content-Type": "application/json", **headers}
        )
        if isinstance(content, dict):
            assert {name: answered[name] for name in SAFE} == SAFE
        return status, content

    def named(self, name):
        return next((run for run in self.get("/runs")["runs"] if run["name"] == name), None)

    def until(self, condition, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.05)
        raise AssertionError("it did not come to pass")

    def running(self, name, step=3):
        """The run once it has taken some steps."""

        def there():
            run = self.named(name)
            return run if run and run["state"] == "running" and run["step"] >= step else None

        return self.until(there)

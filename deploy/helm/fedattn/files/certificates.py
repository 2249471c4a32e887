"""Makes certificates as Secrets of this namespace, in a Job of the chart.

The authority's folder is a Secret too, so that an upgrade goes on with it. Certificates are made
anew with each run: running services take the newer ones.
"""

import base64
import json
import os
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fedattn.cli.certificates import init_certificates

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Secrets:
    """Those of one namespace.

    Args:
        url: of the cluster's API.
        namespace: they are in.
        token: of an account that may get, create and update them.
        tls: how to know the API; None for plain HTTP.
    """

    def __init__(self, url: str, namespace: str, token: str, tls: ssl.SSLContext | None) -> None:
        self._url = f"{url}/api/v1/namespaces/{namespace}/secrets"
        self._token, self._tls = token, tls

    def read(self, name: str) -> dict[str, bytes] | None:
        """Its files, None if there is no such Secret."""
        try:
            found = self._call("GET", f"{self._url}/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}

    def write(self, name: str, folder: Path) -> None:
        """Make it hold the files of a folder, and no others."""
        files = sorted(path for path in folder.iterdir() if path.is_file())
        data = {path.name: base64.b64encode(path.read_bytes()).decode() for path in files}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        if self.read(name) is None:
            self._call("POST", self._url, body)
        else:
            self._call("PUT", f"{self._url}/{name}", body)

    def _call(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the cluster's own API
            url, json.dumps(body).encode() if body else None, method=method
        )
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:  # noqa: S310
            read: dict[str, Any] = json.load(answer)
            return read


def make(secrets: Secrets, authority: str, names: dict[str, str], days: int) -> None:
    """Make certificates by the authority of a Secret, which is made if it is not there.

    Args:
        secrets: get them.
        authority: Secret with the authority's folder.
        names: Secret -> the name that its certificate bears.
        days: how long they are good.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "ca").mkdir(mode=0o700)
        for file, content in (secrets.read(authority) or {}).items():
            (folder / "ca" / file).touch(mode=0o600)
            (folder / "ca" / file).write_bytes(content)
        init_certificates(folder, sorted(set(names.values()) - {"gateway"}), days)
        secrets.write(authority, folder / "ca")
        for secret, name in names.items():
            secrets.write(secret, folder / name)


def main() -> None:
    """By the environment that the chart sets."""
    address = (
        f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    )
    tls = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    token = (ACCOUNT / "token").read_text().strip()
    secrets = Secrets(address, os.environ["NAMESPACE"], token, tls)
    names = json.loads(os.environ["CERTIFICATES"])
    make(secrets, os.environ["AUTHORITY_SECRET"], names, int(os.environ["DAYS"]))


if __name__ == "__main__":
    main()

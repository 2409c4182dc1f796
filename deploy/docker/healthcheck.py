"""Ask a service whether it is well: `python -m deploy.docker.healthcheck URL` ends with status 0 if it answers 200, else 1 and why."""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 55.0
"""The first answer of /readyz waits for the self-test."""


def main() -> None:
    """Check the URL of the command line."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the service is on this host, whatever proxy the host uses
    try:
        with opener.open(sys.argv[1], timeout=TIMEOUT_S) as response:
            response.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{sys.argv[1]} answers {error.code}: {error.read(2000).decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{sys.argv[1]} does not answer: {error}")


if __name__ == "__main__":
    main()

"""Reads small texts such as the items of a catalogue from local files, s3 objects and web pages."""

from pathlib import Path

from raster import source
from raster.source import is_remote, s3_client, within
from runtime.files import require_regular

MOST_BYTES = 64 << 20  # of a collection or an item


def read_text(path):
    """The text of a local file, an s3 object or a web page. OSError where it isn't there, or does not arrive whole or in time."""
    path = str(path)
    if not is_remote(path):
        require_regular(path)
        return Path(path).read_text(encoding="utf-8")
    content = within(source.REQUEST_SECONDS, lambda: read_s3(path) if path.startswith("s3://") else read_page(path))
    if len(content) > MOST_BYTES:
        raise OSError(f"longer than {MOST_BYTES} bytes")
    return content.decode("utf-8")


def read_s3(path):
    """At most MOST_BYTES + 1 bytes of an s3 object. FileNotFoundError, OSError."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.removeprefix("s3://").partition("/")
    try:
        return s3_client().get_object(Bucket=bucket, Key=key)["Body"].read(MOST_BYTES + 1)
    except ClientError as error:
        missing = error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404")
        raise (FileNotFoundError if missing else OSError)(str(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error


def read_page(path):
    """At most MOST_BYTES + 1 bytes of a web page. FileNotFoundError, OSError."""
    from http.client import HTTPException, IncompleteRead
    from urllib.error import HTTPError
    from urllib.parse import quote
    from urllib.request import urlopen

    try:
        with urlopen(quote(path, safe="/:?&=%#@+,;~!$'()*[]"), timeout=30) as response:
            content, expected = response.read(MOST_BYTES + 1), response.length
    except HTTPError as error:
        raise (FileNotFoundError if error.code == 404 else OSError)(str(error)) from error
    except IncompleteRead as error:
        raise OSError("the answer was cut off") from error
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if expected and len(content) <= MOST_BYTES:  # with a size given, read() takes a connection that breaks for the end
        raise OSError(f"the answer was cut off, {expected} bytes before its end")
    return content

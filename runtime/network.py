"""
Which servers this process may ask for rasters.

Addresses on a command line are the user's word: their servers (s3 buckets) may be asked. What only a file names, such as a VRT or a
delivery's collection, may not, unless --allow-network is passed.
"""

import os
import re
from urllib.parse import urlparse

SCHEMES = ("s3", "http", "https")
# GDAL asks for no other address than this one while it is set, whatever leads there. Vector files are read by a GDAL of their own, which
# reads the environment too.
GDAL_LIMIT, NOTHING = "CPL_VSIL_CURL_ALLOWED_FILENAME", "none"

allowed = {"everywhere": False, "servers": frozenset()}


def add_network_flag(parser):
    parser.add_argument("--allow-network", action="store_true", help="let files (a VRT, a STAC item, an ARD's links) lead to servers "
                        "that the command line does not name")


def is_address(path):
    return urlparse(str(path)).scheme in SCHEMES


def server_of(address):
    """`https://host:port` or `s3://bucket`."""
    found = urlparse(str(address))
    return f"{found.scheme}://{found.netloc}"


def without_signature(text):
    """
    A text with its addresses cut off at their ?: what follows may be a signature, which is nobody's business in messages, records and
    manifests. An item's #ID stays.
    """
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s#'\"]*", r"\1", text)


def permit(values, everywhere):
    """Let this process ask the servers that the values of a command line name; everywhere: every one (--allow-network)."""
    waiting, servers = list(values), set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, tuple, set)):
            waiting += value
        elif isinstance(value, str) and is_address(value):
            servers.add(server_of(value))
    take_over({"everywhere": everywhere, "servers": frozenset(servers)})


def allow_server_of(address):
    """The caller has this address from the user."""
    take_over({**allowed, "servers": allowed["servers"] | {server_of(address)}})


def take_over(permission):
    """Replace `allowed`, as a worker does with that of its parent."""
    allowed.update(permission)
    if allowed["everywhere"] or allowed["servers"]:
        if os.environ.get(GDAL_LIMIT) == NOTHING:
            del os.environ[GDAL_LIMIT]
    else:
        os.environ.setdefault(GDAL_LIMIT, NOTHING)


def may_ask(address):
    """Whether what a file names may be asked for."""
    return allowed["everywhere"] or server_of(address) in allowed["servers"]
